# What `cmake --install` puts under its prefix: bin/ with both programs, lib/ with the libraries of
# the torch wheel that chorus-server loads, and with CHORUS_CUDA libchorus_cuda.so, which it opens
# where a GPU is asked for (CHORUS_INSTALL_CUDA adds what that one loads); share/doc/chorus/ with
# licences. Everything else that the programs need comes from the system's packages. The prefix may
# be moved: programs find lib/ from where they lie.
include(GNUInstallDirs)
option(CHORUS_INSTALL_CUDA "Install LibTorch's CUDA libraries too (a torch wheel with its dependencies)" OFF)

install(TARGETS chorus-server chorus RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
set_target_properties(chorus-server PROPERTIES INSTALL_RPATH "$ORIGIN/../lib")
if(TARGET chorus_cuda)
  install(TARGETS chorus_cuda LIBRARY DESTINATION lib)
endif()
install(FILES ${CHORUS_ROOT}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

# The wheels' own RPATH ends with $ORIGIN: side by side in one folder they find each other.
set(_torch_libs c10 torch_cpu)
if(CHORUS_INSTALL_CUDA)
  list(APPEND _torch_libs c10_cuda torch_cuda torch_cuda_linalg torch_nvshmem torch)
endif()
foreach(_lib ${_torch_libs})
  install(PROGRAMS ${CHORUS_TORCH_DIR}/lib/lib${_lib}.so DESTINATION lib)
endforeach()
install(PROGRAMS ${CHORUS_TORCH_DIR}/lib/libgomp.so.1 DESTINATION lib)
file(GLOB _licences ${_site}/torch-*.dist-info/licenses/*)
install(FILES ${_licences} DESTINATION ${CMAKE_INSTALL_DOCDIR}/torch)

if(CHORUS_INSTALL_CUDA)
  file(GLOB _nvidia_libs ${_site}/nvidia/*/lib/*.so.* ${_site}/nvidia/*/lib/*.so)
  list(FILTER _nvidia_libs EXCLUDE REGEX "/libnvvm\\.")  # nvcc's
else()
  file(GLOB _nvidia_libs ${_site}/nvidia/*/lib/libcudart.so.* ${_site}/nvidia/*/lib/libcupti.so.*)
endif()
install(PROGRAMS ${_nvidia_libs} DESTINATION lib)
file(GLOB _nvidia_infos ${_site}/nvidia_*.dist-info)
foreach(_info ${_nvidia_infos})
  string(REGEX REPLACE ".*/(nvidia_[a-z0-9_]+)-.*" "\\1" _package ${_info})
  file(GLOB_RECURSE _licences ${_info}/licenses/*)
  install(FILES ${_licences} DESTINATION ${CMAKE_INSTALL_DOCDIR}/${_package})
endforeach()
