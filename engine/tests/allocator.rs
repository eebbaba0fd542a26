//! Memory kept between steps. In a program of its own: it concerns the whole
//! process.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

use data::rng::Rng;
use engine::allocator::keep_freed_memory;
use tch::{Device, Kind, Tensor};

/// Megabytes of memory that the process holds.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0 / 1e6
}

fn tensor(megabytes: f64, value: f64) -> Tensor {
    Tensor::full([(megabytes * 1e6 / 4.0) as i64], value, (Kind::Float, Device::Cpu))
}

/// Steps that hold on to tensors of growing and of shrinking sizes, so that a
/// heap would be left with gaps.
#[test]
fn a_process_is_as_large_as_its_tensors_were_at_their_most() {
    keep_freed_memory();
    let before = resident();
    let mut rng = Rng::new(0, &[]);
    let mut most = 0.0f64;
    for step in 0..6 {
        let mut held: Vec<(Tensor, f64, f64)> = Vec::new();
        let mut used = 0.0;
        for number in 0..120 {
            let size = 1.1 + rng.uniform() * f64::from(3 + 7 * (step % 3));
            let value = f64::from(step * 1000 + number);
            held.push((tensor(size, value), size, value));
            used += size;
            most = most.max(used);
            // Some are gone soon, others at the end.
            if rng.uniform() < 0.6 {
                let (tensor, size, value) =
                    held.swap_remove((rng.uniform() * held.len() as f64) as usize);
                assert_eq!(tensor.min().double_value(&[]), value);
                used -= size;
            }
        }
        for (tensor, _, value) in &held {
            let (least, most) = (tensor.min().double_value(&[]), tensor.max().double_value(&[]));
            assert_eq!((least, most), (*value, *value), "tensors overlap");
        }
        drop(held);
        // Threads and tables take the rest.
        let grown = resident() - before;
        assert!(grown <= most * 1.05 + 25.0, "step {step}: {grown} MB for {most} MB of tensors");
    }
    // It is kept: the next step fetches nothing.
    assert!(resident() - before >= most * 0.8);
}
