# LibTorch as it lies in the PyPI wheel. Torch's own CMake package drags CUDA in, so the two
# libraries that a CPU build needs are imported by hand. Its include folder holds its own fmt and
# protobuf: it goes last on the search path (-idirafter).
file(GLOB _torch_candidates ${CHORUS_ROOT}/.venv/lib/python3*/site-packages/torch)
set(CHORUS_TORCH_DIR "${_torch_candidates}" CACHE PATH "The torch package folder of a Python environment")
if(NOT EXISTS "${CHORUS_TORCH_DIR}/lib/libtorch_cpu.so")
  message(FATAL_ERROR "No libtorch_cpu.so under CHORUS_TORCH_DIR='${CHORUS_TORCH_DIR}'. "
                      "Run scripts/setup.sh, or pass -DCHORUS_TORCH_DIR=<site-packages>/torch.")
endif()
get_filename_component(_site "${CHORUS_TORCH_DIR}" DIRECTORY)
# libtorch_cpu itself needs the CUDA runtime and CUPTI.
file(GLOB _cuda_lib_dirs ${_site}/nvidia/cu13/lib ${_site}/nvidia/cuda_runtime/lib ${_site}/nvidia/cuda_cupti/lib)

foreach(_lib c10 torch_cpu)
  add_library(torch::${_lib} SHARED IMPORTED GLOBAL)
  set_target_properties(torch::${_lib} PROPERTIES IMPORTED_LOCATION ${CHORUS_TORCH_DIR}/lib/lib${_lib}.so)
endforeach()

add_library(chorus_torch INTERFACE)
target_compile_options(chorus_torch INTERFACE
  "SHELL:-idirafter ${CHORUS_TORCH_DIR}/include"
  "SHELL:-idirafter ${CHORUS_TORCH_DIR}/include/torch/csrc/api/include")
target_compile_definitions(chorus_torch INTERFACE _GLIBCXX_USE_CXX11_ABI=1)
target_link_libraries(chorus_torch INTERFACE torch::torch_cpu torch::c10)
foreach(_dir ${_cuda_lib_dirs})
  target_link_options(chorus_torch INTERFACE "LINKER:-rpath-link,${_dir}")
endforeach()
# DT_RPATH, not RUNPATH: CMake records where the torch libraries lie, and through it libtorch_cpu
# finds its own dependencies too.
target_link_options(chorus_torch INTERFACE "LINKER:--disable-new-dtags")
