# Helpers of the build: one library a folder, tests and fuzzers beside them.
include_guard()

# Warnings and the include root for every target of the repository.
function(chorus_target_defaults target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_include_directories(${target} PUBLIC ${CHORUS_ROOT} ${CHORUS_GENERATED})
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers)
endfunction()

# chorus_library(NAME SOURCES a.cc b.cc [DEPS other libraries]): a static library; DEPS are public.
function(chorus_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  chorus_target_defaults(${name})
  target_link_libraries(${name} PUBLIC ${ARG_DEPS})
endfunction()

# chorus_test(NAME SOURCES x_test.cc [DEPS ...] [LABELS unit ...] [ARGS ...] [TIMEOUT seconds]):
# a GoogleTest program registered with CTest under its labels (default: unit). It runs in the
# repository root, so tests open "tests/golden/..." by that path.
function(chorus_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;DEPS;LABELS;ARGS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  chorus_target_defaults(${name})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} GTest::gmock GTest::gtest GTest::gtest_main)
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_test(NAME ${name} COMMAND ${name} ${ARG_ARGS} WORKING_DIRECTORY ${CHORUS_ROOT})
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT})
endfunction()

# chorus_fuzzer(NAME SOURCES x_fuzzer.cc CORPUS dir [DEPS ...]): LLVMFuzzerTestOneInput. With
# -DCHORUS_FUZZ=ON (clang) it is a libFuzzer program; otherwise the same target is linked with a
# small driver that runs every file of CORPUS once, and that run is a unit test.
function(chorus_fuzzer name)
  cmake_parse_arguments(ARG "" "CORPUS" "SOURCES;DEPS" ${ARGN})
  if(CHORUS_FUZZ)
    add_executable(${name} ${ARG_SOURCES})
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  else()
    add_executable(${name} ${ARG_SOURCES} ${CHORUS_ROOT}/tests/support/run_corpus.cc)
    add_test(NAME ${name} COMMAND ${name} ${CHORUS_ROOT}/${ARG_CORPUS} WORKING_DIRECTORY ${CHORUS_ROOT})
    set_tests_properties(${name} PROPERTIES LABELS "unit;fuzz" TIMEOUT 300)
  endif()
  chorus_target_defaults(${name})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS})
endfunction()

# chorus_bench(NAME SOURCES x_bench.cc [DEPS ...]): a program that prints JSON; never run by CTest.
function(chorus_bench name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  chorus_target_defaults(${name})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS})
endfunction()
