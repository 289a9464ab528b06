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
