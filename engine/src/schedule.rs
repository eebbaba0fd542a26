//! Schedules as pure functions of the iteration: learning rate and weight
//! decay follow from (it, total) alone, so a resumed run needs no state.
//!
//! The cosines are those of SparK's pretraining (arXiv 2301.03580), the steps
//! those of detectron2 and mmdet.

use std::f64::consts::PI;

/// Share of the peak learning rate that the warm-up starts from.
const WARMUP_START: f64 = 0.005;
/// Share of the peak learning rate that the cosine ends at.
const COSINE_END: f64 = 0.001;

/// Learning rate at iteration `it` (0-based): linear from 0.005·`peak` over
/// `warmup_iters` iterations, then half a cosine from `peak` to 0.001·`peak`,
/// which the last iteration, `total_iters` − 1, reaches exactly.
///
/// A warm-up as long as the run leaves no cosine: the iteration after it is
/// at the peak.
pub fn cosine_lr(peak: f64, it: u64, total_iters: u64, warmup_iters: u64) -> f64 {
    if it < warmup_iters {
        let ratio = it as f64 / warmup_iters as f64;
        return peak * (WARMUP_START + (1.0 - WARMUP_START) * ratio);
    }
    let ratio = progress(it - warmup_iters, total_iters.saturating_sub(warmup_iters));
    peak * (COSINE_END + (1.0 - COSINE_END) * half_cosine(ratio))
}

/// Weight decay at iteration `it` (0-based): half a cosine from `start` to
/// `end`, which the last iteration, `total_iters` − 1, reaches exactly.
pub fn cosine_weight_decay(start: f64, end: f64, it: u64, total_iters: u64) -> f64 {
    end + (start - end) * half_cosine(progress(it, total_iters))
}

/// Learning rate at iteration `it` (0-based): `peak`, multiplied by `gamma` at
/// each of the `milestones` that has been reached. Over the first
/// `warmup_iters` iterations it is further multiplied by a factor that rises
/// linearly from `warmup_factor` to 1 (detectron2's `WarmupMultiStepLR`).
pub fn step_lr(
    peak: f64,
    it: u64,
    milestones: &[u64],
    gamma: f64,
    (warmup_iters, warmup_factor): (u64, f64),
) -> f64 {
    let reached = milestones.iter().filter(|&&milestone| it >= milestone).count();
    let warmup = match it < warmup_iters {
        true => warmup_factor + (1.0 - warmup_factor) * it as f64 / warmup_iters as f64,
        false => 1.0,
    };
    peak * gamma.powi(reached as i32) * warmup
}

/// `it` / (`total` − 1), held within 0 and 1; 0 where there is no way to go.
fn progress(it: u64, total: u64) -> f64 {
    match total {
        0 | 1 => 0.0,
        _ => (it as f64 / (total - 1) as f64).min(1.0),
    }
}

/// 1 at ratio 0, ½ at ½, 0 at 1.
fn half_cosine(ratio: f64) -> f64 {
    0.5 + 0.5 * (PI * ratio).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A few roundings of f64 apart, for formulas that sum in another order.
    fn close(a: f64, b: f64) {
        assert!((a - b).abs() <= 1e-15 * b.abs().max(1e-3), "{a} is not {b}");
    }

    #[test]
    fn warm_up_is_linear_and_meets_the_peak() {
        close(cosine_lr(2.0, 0, 100, 10), 0.01);
        close(cosine_lr(2.0, 5, 100, 10), 2.0 * 0.5025);
        close(cosine_lr(2.0, 10, 100, 10), 2.0);
    }

    #[test]
    fn cosine_passes_the_middle_and_ends_at_the_last_iteration() {
        // 10 + 90/2 is the middle of iterations 10..=100.
        close(cosine_lr(2.0, 55, 101, 10), 2.0 * (0.001 + 0.999 * 0.5));
        close(cosine_lr(2.0, 100, 101, 10), 0.002);
        // cos(π/3) = ½ a third of the way: 0.001 + 0.999·¾.
        close(cosine_lr(1.0, 40, 101, 10), 0.001 + 0.999 * 0.75);
    }

    #[test]
    fn edges_give_finite_rates() {
        close(cosine_lr(1.0, 0, 10, 0), 1.0);
        close(cosine_lr(1.0, 0, 1, 0), 1.0);
        // total = warmup + 1: the only iteration after the warm-up.
        close(cosine_lr(1.0, 5, 6, 5), 1.0);
        // The warm-up outlasts the run.
        close(cosine_lr(1.0, 2, 3, 10), 0.005 + 0.995 * 0.2);
        // Past the end stays at the end.
        close(cosine_lr(1.0, 500, 100, 10), 0.001);
    }

    #[test]
    fn weight_decay_goes_from_start_to_end() {
        close(cosine_weight_decay(0.04, 0.2, 0, 11), 0.04);
        close(cosine_weight_decay(0.04, 0.2, 5, 11), 0.12);
        close(cosine_weight_decay(0.04, 0.2, 10, 11), 0.2);
        close(cosine_weight_decay(0.04, 0.2, 0, 1), 0.04);
        close(cosine_weight_decay(0.05, 0.05, 7, 11), 0.05);
    }

    #[test]
    fn steps_fall_at_their_milestones_after_a_linear_warm_up() {
        let lr = |it| step_lr(2.5e-4, it, &[60_000, 80_000], 0.25, (1000, 0.01));
        close(lr(0), 2.5e-6);
        close(lr(500), 2.5e-4 * 0.505);
        close(lr(1000), 2.5e-4);
        close(lr(59_999), 2.5e-4);
        close(lr(60_000), 2.5e-4 * 0.25);
        close(lr(89_999), 2.5e-4 * 0.0625);
        close(step_lr(1.0, 0, &[], 0.1, (0, 0.001)), 1.0);
        // A milestone within the warm-up counts as well.
        close(step_lr(1.0, 5, &[3], 0.5, (10, 0.0)), 0.25);
    }

    /// Values from an evaluation of the published formulas with 30 digits.
    #[test]
    fn values_computed_elsewhere() {
        close(cosine_lr(2e-4, 3, 17, 4), 2e-4 * (0.005 + 0.995 * 0.75));
        close(cosine_lr(2e-4, 9, 17, 4), 1.259_560_226_057_418e-4);
        close(cosine_weight_decay(0.04, 0.2, 9, 17), 0.135_607_225_761_290_26);
    }
}
