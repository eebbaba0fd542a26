//! How much memory this process takes, as Linux counts it.

use std::fs;

use anyhow::{Context, Result};

/// What the process held before the work began: its program and libraries.
#[derive(Debug, Clone, Copy)]
pub struct Baseline {
    kilobytes: u64,
}

impl Baseline {
    /// As of now.
    ///
    /// # Errors
    /// The system does not say, as other systems than Linux.
    pub fn now() -> Result<Self> {
        Ok(Self { kilobytes: field_of("self", "VmRSS:")? })
    }

    /// Forgets peaks so far, such as that of reading a weight file.
    ///
    /// A system that does not allow it counts them: that overstates, on our
    /// side as on the other.
    pub fn forget_peak() {
        // 5: "reset the peak resident set size", proc_pid_clear_refs(5).
        let _ = fs::write("/proc/self/clear_refs", "5");
    }

    /// Megabytes by which the process has grown at most since.
    ///
    /// # Errors
    /// As [`Baseline::now`].
    pub fn peak_growth(&self) -> Result<f64> {
        let peak = field_of("self", "VmHWM:")?;
        Ok(peak.saturating_sub(self.kilobytes) as f64 * 1024.0 / 1e6)
    }
}

/// Most megabytes that the process of this number has held.
///
/// # Errors
/// It is gone, or the system does not say.
pub fn peak_of(process: u32) -> Result<f64> {
    Ok(field_of(&process.to_string(), "VmHWM:")? as f64 * 1024.0 / 1e6)
}

/// Kilobytes that the line beginning with `field` says.
fn field_of(process: &str, field: &str) -> Result<u64> {
    let path = format!("/proc/{process}/status");
    let status =
        fs::read_to_string(&path).with_context(|| format!("memory is read from Linux's {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("{path} has no number in a line {field}"))
}
