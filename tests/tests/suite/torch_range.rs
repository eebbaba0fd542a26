//! Building against releases of torch that torch-sys was not generated from: what a release has is
//! called, what it lacks is an error.

use spark_tests::libtorch_minor;
use tch::{Device, Kind, TchError, Tensor};

/// What a function that torch-sys calls gives with this release.
fn outcome(called: Result<Tensor, TchError>, is_there: bool, name: &str) {
    match called {
        Ok(_) => assert!(is_there, "{name} is a stand-in, which must throw"),
        Err(error) => {
            let said = error.to_string();
            assert!(!is_there, "{name}: {said}");
            assert!(said.contains(&format!("has no {name} as torch-sys calls it")), "{said}");
        }
    }
}

#[test]
fn functions_of_other_releases_are_errors_and_this_ones_are_called() {
    let matrix = Tensor::eye(3, (Kind::Float, Device::Cpu));
    outcome(matrix.f_cholesky(false), libtorch_minor() < 15, "cholesky");
    outcome(matrix.f_qr(true).map(|(q, _)| q), libtorch_minor() < 15, "qr");
    outcome(matrix.f_hash_tensor([0].as_slice(), false, 0), libtorch_minor() > 8, "hash_tensor");
    let called = Tensor::f_internal_philox_key_fold_in(&matrix, 1);
    // Before 2.12 there is none. Later ones want a key of their own kind, and say so.
    if libtorch_minor() < 12 {
        outcome(called, false, "_philox_key_fold_in");
    } else if let Err(error) = called {
        assert!(!error.to_string().contains("torch-sys"), "{error}");
    }
}
