# Writes a small record next to the libraries, so that Python can compare them with this machine before it loads them.

# specee_write_record(<file>): pin, compiler and the CPU features that ggml-cpu was compiled for.
function(specee_write_record file)
    set(features "")
    get_target_property(options ggml-cpu COMPILE_OPTIONS)
    list(FILTER options INCLUDE REGEX "^-m")
    if(options AND NOT MSVC)
        execute_process(COMMAND ${CMAKE_CXX_COMPILER} ${options} -dM -E -x c++ /dev/null
            OUTPUT_VARIABLE macros RESULT_VARIABLE failed ERROR_QUIET)
        # compiler macro -> name in /proc/cpuinfo. AMX is absent on purpose: ggml asks the system for it at run time.
        foreach(pair
                SSE4_2=sse4_2 AVX=avx F16C=f16c FMA=fma AVX2=avx2 BMI2=bmi2 AVXVNNI=avx_vnni
                AVX512F=avx512f AVX512CD=avx512cd AVX512BW=avx512bw AVX512DQ=avx512dq AVX512VL=avx512vl
                AVX512VBMI=avx512vbmi AVX512VBMI2=avx512_vbmi2 AVX512VNNI=avx512_vnni AVX512BF16=avx512_bf16
                AVX512BITALG=avx512_bitalg AVX512VPOPCNTDQ=avx512_vpopcntdq AVX512FP16=avx512_fp16 GFNI=gfni
                ARM_FEATURE_DOTPROD=asimddp ARM_FEATURE_MATMUL_INT8=i8mm ARM_FEATURE_SVE=sve ARM_FEATURE_SVE2=sve2
                ARM_FEATURE_BF16=bf16)
            string(REPLACE "=" ";" pair ${pair})
            list(GET pair 0 macro)
            list(GET pair 1 feature)
            if(macros MATCHES "#define __${macro}(__)? ")
                list(APPEND features ${feature})
            endif()
        endforeach()
    endif()
    list(JOIN features " " features)
    string(REGEX REPLACE ".*==" "" pin ${SPECEE_PIN})
    set(compiler "${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}")
    file(CONFIGURE OUTPUT ${file} CONTENT [[{
  "pin": "@pin@",
  "commit": "@SPECEE_PIN_COMMIT@",
  "compiler": "@compiler@",
  "machine": "@CMAKE_SYSTEM_PROCESSOR@",
  "cpu": "@features@"
}
]] @ONLY)
    file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/generated/specee-build-info.h CONTENT
        "#define SPECEE_BUILD_INFO \"pin=@pin@;commit=@SPECEE_PIN_COMMIT@;compiler=@compiler@;cpu=@features@\"\n" @ONLY)
endfunction()
