# require_pybind11(): pybind11 >= 3.1 for the interpreter that was found. pip brings it as a build requirement of the
# package. A plain `cmake -B build` has no such step: then it is taken from the interpreter's own packages, or else
# fetched from the package index into an environment in the build folder, so that the interpreter itself stays as it is.
set(PYBIND11_REQUIREMENT "pybind11>=3.1,<4")

function(ask_for_pybind11 python result)
  execute_process(
    COMMAND "${python}" -m pybind11 --cmakedir
    OUTPUT_VARIABLE folder OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE status)
  if(status EQUAL 0)
    set(${result} "${folder}" PARENT_SCOPE)
  endif()
endfunction()

function(fetch_pybind11 result)
  set(environment "${PROJECT_BINARY_DIR}/pybind11-env")
  ask_for_pybind11("${environment}/bin/python" folder)
  if(folder)
    set(${result} "${folder}" PARENT_SCOPE)
    return()
  endif()
  message(STATUS "Fetching ${PYBIND11_REQUIREMENT} from the package index into ${environment}")
  execute_process(COMMAND "${Python_EXECUTABLE}" -m venv "${environment}" OUTPUT_QUIET ERROR_QUIET)
  execute_process(
    COMMAND "${environment}/bin/python" -m pip install --quiet --disable-pip-version-check "${PYBIND11_REQUIREMENT}"
    OUTPUT_QUIET ERROR_QUIET)
  ask_for_pybind11("${environment}/bin/python" folder)
  set(${result} "${folder}" PARENT_SCOPE)
endfunction()

macro(require_pybind11)
  if(NOT pybind11_DIR)
    ask_for_pybind11("${Python_EXECUTABLE}" pybind11_DIR)
  endif()
  find_package(pybind11 3.1...<4 CONFIG QUIET)
  if(NOT pybind11_FOUND AND NOT DEFINED SKBUILD)
    fetch_pybind11(pybind11_DIR)
    find_package(pybind11 3.1...<4 CONFIG QUIET)
  endif()
  if(NOT pybind11_FOUND)
    message(FATAL_ERROR "${PYBIND11_REQUIREMENT} was not found for ${Python_EXECUTABLE} and could not be fetched (that "
                        "needs Debian's python3-venv). Install it: pip install '${PYBIND11_REQUIREMENT}', "
                        "or build without the extension: -DPEERCORE_PYTHON=OFF")
  endif()
endmacro()
