//! How much of a batch is computed at a time, and in which arithmetic.

use anyhow::{Result, bail, ensure};
use words::counted;

use super::{Choices, Machine, gigabytes};
use crate::precision::Precision;
use crate::settings::Settings;
use crate::training::trial::{StepCost, is_out_of_memory};

/// bfloat16 is taken on a GPU if a step takes at most this share of float32's time there.
const WORTH: f64 = 0.9;

/// Chooses `accum-steps` for a batch of `batch` images, so that a part of each process fits into
/// memory. On a processor, `cost` tells by what few images took. On a GPU a part is tried
/// (`try_part`, images of one process at a time) and halved while memory runs out. A part has at
/// least `least` images. What steps take then.
///
/// # Errors
/// Nothing fits, or not what is given: what to give.
pub fn choose_parts<C: Settings>(
    choices: &mut Choices<C>,
    machine: &Machine,
    (batch, least): (usize, usize),
    cost: StepCost,
    try_part: impl Fn(usize) -> Result<StepCost>,
) -> Result<StepCost> {
    let own = batch / machine.processes;
    ensure!(
        own > 0 && batch.is_multiple_of(machine.processes),
        "batch-size is {batch}, but it is divided among {} processes; give a multiple of that",
        machine.processes
    );
    let given = choices.is_given("accum-steps");
    let parts: Vec<usize> = match given {
        true => Vec::new(),
        false => (1..=own)
            .filter(|parts| own.is_multiple_of(*parts) && own / parts >= least.min(own))
            .collect(),
    };
    if machine.has_gpu() {
        // A part that was halved, not one of 7/9: few are tried.
        for parts in parts.into_iter().filter(|parts| parts.is_power_of_two()) {
            match try_part(own / parts) {
                Ok(cost) => {
                    tell(choices, parts, own / parts, "it was tried")?;
                    return Ok(cost);
                }
                Err(error) if is_out_of_memory(&error) => {}
                Err(error) => return Err(error),
            }
        }
        ensure!(
            given,
            "memory runs out on {:?} even with {} at a time; give a smaller --model or --input-size",
            machine.device,
            counted(least.min(own), "image")
        );
        return Ok(cost);
    }
    let Some((budget, bytes)) = machine.budget().zip(cost.bytes) else { return Ok(cost) };
    let needs = |part: usize| cost.fixed + bytes * part as u64;
    if given {
        return Ok(cost);
    }
    for parts in parts {
        let part = own / parts;
        if needs(part) <= budget {
            let memory = gigabytes(needs(part));
            tell(choices, parts, part, &format!("about {memory} are needed"))?;
            return Ok(cost);
        }
    }
    bail!(
        "for {} at a time about {} of memory is needed, but of what is free {} may be taken; give a \
         smaller --model, --input-size or --batch-size",
        counted(least.min(own), "image"),
        gigabytes(needs(least.min(own))),
        gigabytes(budget)
    )
}

fn tell<C: Settings>(choices: &mut Choices<C>, parts: usize, part: usize, how: &str) -> Result<()> {
    let why = format!("memory is enough for {} at a time: {how}", counted(part, "image"));
    choices.choose("accum-steps", parts, why)?;
    Ok(())
}

/// Chooses `precision`: bfloat16 where the processor computes in it, or where a GPU is faster with
/// it than with float32, `measure` says in which time.
///
/// # Errors
/// Steps that cannot be made for other reasons than memory.
pub fn choose_precision<C: Settings>(
    choices: &mut Choices<C>,
    machine: &Machine,
    measure: impl Fn(Precision) -> Result<StepCost>,
) -> Result<()> {
    if choices.is_given("precision") {
        return Ok(());
    }
    if !machine.has_gpu() {
        let (precision, why) = match machine.bfloat16 {
            true => (Precision::Bfloat16, "the processor computes in it"),
            false => (Precision::Float32, "the processor has no bfloat16"),
        };
        choices.choose("precision", precision, why)?;
        return Ok(());
    }
    let [single, half] = [Precision::Float32, Precision::Bfloat16].map(measure);
    let (single, half) = (single?.seconds, half?.seconds);
    let times = format!("{:.2} of float32's time on this GPU", half / single);
    let precision = if half <= WORTH * single { Precision::Bfloat16 } else { Precision::Float32 };
    let why = match precision {
        Precision::Bfloat16 => times,
        _ => format!("bfloat16 takes {times}"),
    };
    choices.choose("precision", precision, why)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use anyhow::anyhow;
    use tch::Device;

    use super::*;
    use crate::settings::{ExecutionSettings, OptimSettings};

    fn machine(device: Device, processes: usize, memory: u64) -> Machine {
        Machine { device, cores: 2, processes, memory: Some(memory), bfloat16: false }
    }

    fn cost(bytes: u64) -> StepCost {
        StepCost { seconds: 0.1, bytes: Some(bytes), fixed: 1_000_000_000 }
    }

    fn parts(machine: &Machine, batch: usize, given: &str, cost: StepCost) -> Result<usize> {
        let mut choices: Choices<OptimSettings> = Choices::new(given.parse().unwrap());
        let untried = |_| panic!("on a processor nothing is tried");
        choose_parts(&mut choices, machine, (batch, 2), cost, untried)?;
        Ok(choices.settings().unwrap().accum_steps)
    }

    #[test]
    fn a_processors_parts_fit_into_a_share_of_its_free_memory() {
        // 12 GB may be taken.
        let cpu = machine(Device::Cpu, 1, 20_000_000_000);
        assert_eq!(parts(&cpu, 64, "", cost(100_000_000)).unwrap(), 1);
        assert_eq!(parts(&cpu, 64, "", cost(300_000_000)).unwrap(), 2);
        assert_eq!(parts(&cpu, 60, "", cost(900_000_000)).unwrap(), 5, "12 images");
        assert_eq!(parts(&cpu, 64, "accum-steps = 4", cost(1)).unwrap(), 4);
        let unknown = StepCost { bytes: None, ..cost(0) };
        assert_eq!(parts(&cpu, 64, "", unknown).unwrap(), 1);
        let two = machine(Device::Cpu, 2, 20_000_000_000);
        assert_eq!(parts(&two, 64, "", cost(300_000_000)).unwrap(), 1);
        let error = parts(&cpu, 64, "", cost(9_000_000_000)).unwrap_err().to_string();
        assert!(error.starts_with("for 2 images at a time about 19.0 GB"), "{error}");
        assert!(error.contains("12.0 GB may be taken; give a smaller --model"), "{error}");
        let error = parts(&two, 15, "", cost(1)).unwrap_err().to_string();
        assert!(error.contains("batch-size is 15, but it is divided among 2"), "{error}");
    }

    #[test]
    fn a_gpus_parts_are_halved_while_memory_runs_out() {
        let gpu = machine(Device::Cuda(0), 1, 1);
        let fits = |most: usize| {
            let mut choices: Choices<OptimSettings> = Choices::new(Default::default());
            let tried = RefCell::new(Vec::new());
            let found = choose_parts(&mut choices, &gpu, (256, 4), cost(1), |part| {
                tried.borrow_mut().push(part);
                match part <= most {
                    true => Ok(cost(part as u64)),
                    false => Err(anyhow!("CUDA out of memory. Tried to allocate")),
                }
            });
            (found.map(|cost| cost.bytes), choices.settings().unwrap().accum_steps, tried.take())
        };
        let (found, accum, tried) = fits(100);
        assert_eq!((found.unwrap(), accum, tried), (Some(64), 4, vec![256, 128, 64]));
        let (found, _, tried) = fits(1);
        assert_eq!(tried.last(), Some(&4));
        let error = found.unwrap_err().to_string();
        assert!(error.contains("even with 4 images at a time; give a smaller"), "{error}");
    }

    #[test]
    fn another_error_than_memory_is_no_reason_to_halve() {
        let gpu = machine(Device::Cuda(0), 1, 1);
        let mut choices: Choices<OptimSettings> = Choices::new(Default::default());
        let fails = |_| Err(anyhow!("a file is damaged"));
        let error = choose_parts(&mut choices, &gpu, (8, 1), cost(1), fails).unwrap_err();
        assert_eq!(error.to_string(), "a file is damaged");
    }

    #[test]
    fn bfloat16_is_taken_where_it_is_native() {
        let precision = |machine: &Machine, half: f64| {
            let mut choices: Choices<ExecutionSettings> = Choices::new(Default::default());
            let measure = |precision| match precision {
                Precision::Float32 => Ok(StepCost { seconds: 1.0, ..cost(1) }),
                _ => Ok(StepCost { seconds: half, ..cost(1) }),
            };
            choose_precision(&mut choices, machine, measure).unwrap();
            (choices.settings().unwrap().precision, choices.to_string())
        };
        let cpu = machine(Device::Cpu, 1, 1);
        assert_eq!(precision(&cpu, 0.1).0, Precision::Float32);
        let native = Machine { bfloat16: true, ..cpu };
        assert_eq!(precision(&native, 9.0).0, Precision::Bfloat16);
        let gpu = machine(Device::Cuda(0), 1, 1);
        let (found, told) = precision(&gpu, 0.5);
        assert_eq!(found, Precision::Bfloat16);
        assert!(told.contains("0.50 of float32's time"), "{told}");
        assert_eq!(precision(&gpu, 1.5).0, Precision::Float32);
    }
}
