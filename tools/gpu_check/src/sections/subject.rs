//! A layer or network that is compared in every type of arithmetic.

use anyhow::{Result, anyhow};
use tch::Device;

use super::{NEEDS_CUDA, Setting};
use crate::compare::Apart;
use crate::outcome::{Execution, Outcome, Types};
use crate::recorder::{Finding, Recorder};
use crate::report::Tolerance;

/// What leaves an outcome behind.
pub struct Subject {
    /// For the report.
    pub name: String,
    /// The types it is compared in.
    pub types: &'static [Types],
    /// The maps it runs on; the worst of them is told.
    pub executions: &'static [Execution],
    /// A pass.
    pub of: Box<dyn Fn(Device, Types, Execution) -> Result<Outcome>>,
}

/// Packed and on the grid.
pub const BOTH: &[Execution] = &[Execution::Packed, Execution::Grid];
/// On the grid alone.
pub const GRID: &[Execution] = &[Execution::Grid];
/// Packed alone.
pub const PACKED: &[Execution] = &[Execution::Packed];

/// How outcomes are judged.
#[derive(Debug, Clone, Copy)]
pub struct Judge {
    /// How far two are apart.
    pub apart: fn(&Outcome, &Outcome) -> Result<Apart>,
    /// What each type of arithmetic may lose.
    pub tolerance: fn(Types) -> Tolerance,
}

impl Subject {
    /// A check in each type: the device's outcomes against the reference's on the processor, in
    /// float64.
    pub fn check(&self, setting: &Setting, recorder: &mut Recorder, judge: Judge) {
        let reference = |&execution: &Execution| {
            let outcome = (self.of)(Device::Cpu, Types::Float64, execution.reference());
            Ok((execution, outcome?))
        };
        // Once for all types.
        let mut expected: Option<Result<Vec<(Execution, Outcome)>>> = None;
        for &types in self.types {
            let name = format!("{}, {}", self.name, types.name());
            if types == Types::Float16 && setting.device == Device::Cpu {
                recorder.skip(&name, NEEDS_CUDA);
                continue;
            }
            recorder.check(&name, || {
                let all = || self.executions.iter().map(reference).collect();
                let expected = expected.get_or_insert_with(all);
                let expected = expected.as_ref().map_err(|error| anyhow!("{error:#}"))?;
                let mut worst = Apart::none();
                for (execution, expected) in expected {
                    let got = (self.of)(setting.device, types, *execution)?;
                    let apart = (judge.apart)(&got, expected)?;
                    let place = format!("{}, {}", apart.worst, execution.name());
                    worst = worst.or(Apart { worst: place, ..apart });
                }
                Ok(Finding::apart(worst.figure, (judge.tolerance)(types), worst.worst))
            });
        }
    }
}
