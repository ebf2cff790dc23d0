# require_package(<name> DEBIAN <package> [find_package arguments…]): find_package that ends the configure step with
# the name of the Debian package to install instead of a list of searched folders.
macro(require_package name debian_keyword debian_package)
  find_package(${name} ${ARGN} QUIET)
  if(NOT ${name}_FOUND)
    message(FATAL_ERROR "${name} was not found. On Debian: apt-get install ${debian_package}")
  endif()
endmacro()
