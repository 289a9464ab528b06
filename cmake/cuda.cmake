# The CUDA side, where a new enough nvcc is found or CHORUS_CUDA=1 asks for it; no GPU is needed to
# build it. Code for sm_80 and sm_90a, and PTX for what comes later.
find_program(CHORUS_NVCC nvcc HINTS /usr/local/cuda/bin)
set(_nvcc_version 0)
if(CHORUS_NVCC)
  execute_process(COMMAND ${CHORUS_NVCC} --version OUTPUT_VARIABLE _nvcc_text)
  if(_nvcc_text MATCHES "release ([0-9.]+)")
    set(_nvcc_version ${CMAKE_MATCH_1})
  endif()
endif()
if(DEFINED ENV{CHORUS_CUDA})
  set(_cuda_default $ENV{CHORUS_CUDA})
elseif(_nvcc_version VERSION_GREATER_EQUAL 12.8 AND NOT CHORUS_SANITIZE AND NOT CHORUS_FUZZ)
  set(_cuda_default ON)
else()
  set(_cuda_default OFF)
endif()
option(CHORUS_CUDA "Build the CUDA kernels (needs nvcc 12.8 or later)" ${_cuda_default})

if(CHORUS_CUDA)
  if(NOT CHORUS_NVCC)
    message(FATAL_ERROR "CHORUS_CUDA is on and there is no nvcc: install the CUDA toolkit, or pass -DCHORUS_CUDA=OFF.")
  endif()
  set(CMAKE_CUDA_COMPILER ${CHORUS_NVCC})
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90a-real 90-virtual)
  if(CHORUS_CCACHE)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${CHORUS_CCACHE})
  endif()
  set(CMAKE_CUDA_STANDARD 17)
  enable_language(CUDA)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)  # CMake 3.25 does not know it
endif()

# chorus_cuda_library(NAME SOURCES a.cu ...): kernels. A spilled register, local memory or any other
# warning of ptxas (C7508 among them) is an error: it would cost speed silently.
function(chorus_cuda_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_include_directories(${name} PUBLIC ${CHORUS_ROOT} ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
  target_compile_options(${name} PRIVATE -O3
    "SHELL:-Xptxas --warn-on-spills,--warn-on-local-memory-usage,--warning-as-error")
  set_target_properties(${name} PROPERTIES CUDA_STANDARD 20 CUDA_EXTENSIONS OFF
                        POSITION_INDEPENDENT_CODE ON)
  target_link_libraries(${name} PUBLIC ${ARG_DEPS})
endfunction()

if(CHORUS_CUDA)
  # Libraries of the CUDA toolkit: those beside the torch wheel, which run with it, or the toolkit's
  # own, which are enough to link.
  set(_toolkit_lib_dirs)
  foreach(_dir ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
    list(APPEND _toolkit_lib_dirs ${_dir}/../lib64 ${_dir}/../lib ${_dir}/../../../lib64)
  endforeach()
  find_library(CHORUS_CUDART NAMES libcudart.so.13 HINTS ${_cuda_lib_dirs} ${_toolkit_lib_dirs} NO_DEFAULT_PATH REQUIRED)
  find_library(CHORUS_CUBLASLT NAMES libcublasLt.so.13 HINTS ${_cuda_lib_dirs} ${_toolkit_lib_dirs} NO_DEFAULT_PATH REQUIRED)
  find_path(CHORUS_CUBLASLT_INCLUDE cublasLt.h
            HINTS ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES} ${_site}/nvidia/cu13/include NO_DEFAULT_PATH REQUIRED)
endif()

# chorus_cuda_module(NAME SOURCES a.cc ... DEPS static libraries): lib/libNAME.so in the build
# folder, to be opened by dlopen. It exports what its sources mark and nothing of its libraries, which
# the program that opens it has copies of.
function(chorus_cuda_module name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_library(${name} MODULE ${ARG_SOURCES})
  chorus_target_defaults(${name})
  target_include_directories(${name} SYSTEM PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES} ${CHORUS_CUBLASLT_INCLUDE})
  foreach(_target ${name} ${ARG_DEPS})
    chorus_hide_in_module(${_target})
  endforeach()
  set_target_properties(${name} PROPERTIES
    LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib LINKER_LANGUAGE CXX CUDA_RUNTIME_LIBRARY None
    INSTALL_RPATH "$ORIGIN")
  # torch_cuda registers itself with torch_cpu as it is loaded, also where no symbol of it is used.
  target_link_libraries(${name} PRIVATE ${ARG_DEPS}
    -Wl,--no-as-needed ${CHORUS_TORCH_DIR}/lib/libtorch_cuda.so ${CHORUS_TORCH_DIR}/lib/libc10_cuda.so
    -Wl,--as-needed ${CHORUS_CUBLASLT} ${CHORUS_CUDART})
  target_link_options(${name} PRIVATE LINKER:--exclude-libs,ALL LINKER:--no-undefined)
endfunction()

# Position-independent code of hidden symbols, for a library of the repository and all that it is
# made of.
function(chorus_hide_in_module target)
  if(NOT TARGET ${target})
    return()
  endif()
  get_target_property(_type ${target} TYPE)
  get_target_property(_is_imported ${target} IMPORTED)
  if(_is_imported OR _type STREQUAL "INTERFACE_LIBRARY")
    return()
  endif()
  set_target_properties(${target} PROPERTIES
    POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  get_target_property(_deps ${target} INTERFACE_LINK_LIBRARIES)
  if(_deps)
    foreach(_dep ${_deps})
      chorus_hide_in_module(${_dep})
    endforeach()
  endif()
endfunction()
