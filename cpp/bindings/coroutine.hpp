#pragma once

#include "python_api.hpp"

namespace peercore::bindings {

struct NativeMethod;

/// Makes the awaitable that performs a native method when first stepped (never before), as a coroutine would.
///
/// It passes for a coroutine everywhere asyncio, anyio and inspect look (contract/general, G1): `send`, `throw`,
/// `close`, `cr_*`, the warning when it is dropped unawaited, the RuntimeError when it is awaited twice. When the
/// native short cut does not apply, the method's Python coroutine function runs instead and is stepped in place. Steals
/// the references in `arguments` (kMaxArguments of them, null where not given).
[[nodiscard]] PyObject* new_coroutine(NativeMethod& method, PyObject* const* arguments);

[[nodiscard]] int init_coroutine_type();

/// The type of `new_coroutine`'s objects (borrowed).
[[nodiscard]] PyTypeObject* coroutine_type() noexcept;

}  // namespace peercore::bindings
