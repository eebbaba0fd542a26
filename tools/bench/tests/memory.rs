//! Measuring memory. In a program of its own, since it is the whole process
//! that is measured.

use bench::memory::{Baseline, peak_of};

#[test]
fn a_peak_stays_when_the_memory_is_given_back() {
    let before = Baseline::now().unwrap();
    drop(std::hint::black_box(vec![1u8; 100_000_000]));
    let growth = before.peak_growth().unwrap();
    assert!((95.0..200.0).contains(&growth), "{growth} MB");
    assert!(peak_of(std::process::id()).unwrap() > growth);
}
