//! Numbers of a reference implementation that lie in `fixtures`.

use std::collections::BTreeMap;
use std::path::Path;

use backbone::weights::{self, StateDict};
use tch::{Kind, Tensor};

/// Tensors, and lists of names.
pub struct Fixture {
    /// By name.
    pub tensors: StateDict,
    metadata: BTreeMap<String, String>,
}

impl Fixture {
    /// Reads `fixtures/FILE`.
    pub fn read(file: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(file);
        let file = weights::read(path).unwrap();
        Self { tensors: file.tensors, metadata: file.metadata }
    }

    /// A list of names.
    pub fn names(&self, key: &str) -> Vec<String> {
        serde_json::from_str(&self.metadata[key]).unwrap()
    }

    /// A tensor in float64.
    pub fn double(&self, name: &str) -> Tensor {
        self.tensors[name].to_kind(Kind::Double)
    }

    /// A tensor's values.
    pub fn values(&self, name: &str) -> Vec<f64> {
        Vec::try_from(self.double(name)).unwrap()
    }

    /// A tensor's largest absolute value.
    pub fn largest(&self, name: &str) -> f64 {
        self.double(name).abs().max().double_value(&[])
    }

    /// `got` has the tensor's shape, and its values to within `tolerance`.
    #[track_caller]
    pub fn check(&self, name: &str, got: &Tensor, tolerance: f64) {
        let expected = self.double(name);
        assert_eq!(got.size(), expected.size(), "{name}");
        let difference = (got.to_kind(Kind::Double) - &expected).abs().max().double_value(&[]);
        println!("{name}: {difference:.2e}");
        assert!(difference <= tolerance, "{name}: off by {difference:.2e}");
    }
}

/// `got` is `expected` to within a tolerance relative to it.
#[track_caller]
pub fn assert_relative(what: &str, got: f64, expected: f64, tolerance: f64) {
    let difference = (got - expected).abs() / expected.abs();
    println!("{what}: {difference:.2e}");
    assert!(difference <= tolerance, "{what}: {got:e} for {expected:e}, off by {difference:.2e}");
}
