//! What a processor computes by itself, and a fault that libtorch would die of.

/// Makes oneDNN leave AMX alone where a hypervisor announces it without the
/// tables that describe it: half-precision kernels are then ended by the
/// system with an illegal instruction. The setting is read when libtorch is
/// loaded, so the program starts itself again with it.
#[cfg(all(target_arch = "x86_64", unix))]
pub fn avoid_broken_amx() {
    use std::os::unix::process::CommandExt;

    const SETTING: &str = "ONEDNN_MAX_CPU_ISA";
    if !has_broken_amx() || std::env::var_os(SETTING).is_some() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let error = std::process::Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(SETTING, "AVX10_1_512")
        .exec();
    // Only half precision needs it; float32 runs without.
    tracing::warn!("cannot restart with {SETTING}: {error}; half precision may crash here");
}

/// Nothing to avoid on other processors.
#[cfg(not(all(target_arch = "x86_64", unix)))]
pub fn avoid_broken_amx() {}

/// AMX-TILE is announced (leaf 7, EDX bit 24), but the leaf that describes the
/// tiles' palettes (1Dh) is empty or not there.
#[cfg(all(target_arch = "x86_64", unix))]
fn has_broken_amx() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};

    let highest = __cpuid(0).eax;
    let announced = highest >= 7 && __cpuid_count(7, 0).edx >> 24 & 1 == 1;
    announced && (highest < 0x1d || __cpuid_count(0x1d, 1).eax == 0)
}

/// Whether this processor has instructions for bfloat16 that oneDNN uses (AVX-512 BF16, or AMX
/// where it can be used); without them half precision is emulated, and slower than float32.
#[cfg(all(target_arch = "x86_64", unix))]
pub fn computes_bfloat16() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};

    if __cpuid(0).eax < 7 {
        return false;
    }
    let features = __cpuid_count(7, 0);
    let amx = features.edx >> 22 & 1 == 1 && !has_broken_amx();
    let avx512 = features.eax >= 1 && __cpuid_count(7, 1).eax >> 5 & 1 == 1;
    std::arch::is_x86_feature_detected!("avx512f") && (avx512 || amx)
}

/// Of other processors nothing is known.
#[cfg(not(all(target_arch = "x86_64", unix)))]
pub fn computes_bfloat16() -> bool {
    false
}
