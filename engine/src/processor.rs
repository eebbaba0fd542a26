//! A processor fault that libtorch would die of.

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
