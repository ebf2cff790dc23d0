"""Who is there and what they can do."""


class Registry:
    def __init__(self):
        self._capabilities = {}

    def register(self, entity_id, capabilities):
        self._capabilities[entity_id] = set(capabilities)

    def find_by_capability(self, capability):
        return sorted(entity for entity, found in self._capabilities.items() if capability in found)


_registry = Registry()


def get_registry():
    return _registry
