//! Operations of several processes: this test program starts itself again as each of them.
#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::rc::Rc;
use std::time::Duration;

use backbone::layers::{BatchNorm2d, Layer};
use backbone::{FeatureMap, Mode, PatchMask};
use engine::distributed::{Gradients, ProcessGroup};
use engine::{Error, Result};
use tch::{Device, Kind, Tensor, nn};

/// Set for the processes that a test starts.
const CHILD: &str = "SPARK_TEST_CHILD";

/// Runs the test `name` again as each of `count` processes; what they said.
fn processes(name: &str, count: usize) -> Vec<Output> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let start = |rank: usize| {
        Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env(CHILD, "1")
            .env("RANK", rank.to_string())
            .env("WORLD_SIZE", count.to_string())
            .env("MASTER_ADDR", "127.0.0.1")
            .env("MASTER_PORT", port.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..count).map(start).collect();
    children.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

/// Runs `body` in `count` processes; it succeeds in all.
fn together(name: &str, count: usize, body: impl FnOnce(&ProcessGroup)) {
    if std::env::var_os(CHILD).is_some() {
        let world = ProcessGroup::from_env(Duration::from_secs(30)).unwrap();
        assert_eq!(world.size(), count);
        return body(&world);
    }
    for (rank, output) in processes(name, count).iter().enumerate() {
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "rank {rank}: {text}");
    }
}

fn double(values: &Tensor) -> Tensor {
    values.to_kind(Kind::Double)
}

/// The largest difference, in proportion to the largest value.
fn apart(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    if a.numel() == 0 {
        return 0.0;
    }
    let scale = double(b).abs().max().double_value(&[]).max(1e-300);
    (double(a) - double(b)).abs().max().double_value(&[]) / scale
}

#[test]
fn numbers_objects_and_errors_reach_everybody() {
    together("numbers_objects_and_errors_reach_everybody", 3, |world| {
        let rank = world.rank() as f64;
        let mut values = [1.0, rank, -rank];
        world.sum(&mut values).unwrap();
        assert_eq!(values, [3.0, 3.0, -3.0]);
        let mut values = [rank, -rank];
        world.max(&mut values).unwrap();
        assert_eq!(values, [2.0, 0.0]);
        assert!(world.any(rank == 1.0).unwrap() && !world.any(false).unwrap());

        // Of different lengths, one of them empty.
        let own: Vec<String> = (0..world.rank()).map(|n| format!("ä{n}")).collect();
        let all = world.gather(&own).unwrap();
        assert_eq!(all, [vec![], vec!["ä0".to_owned()], vec!["ä0".to_owned(), "ä1".into()]]);
        let rows = Tensor::full([world.rank() as i64, 2], rank, (Kind::Float, Device::Cpu));
        let rows = world.gather_rows(&rows).unwrap();
        assert_eq!(Vec::<f64>::try_from(rows.view([-1])).unwrap(), [1., 1., 2., 2., 2., 2.]);

        let mut ran = false;
        let shared = world.broadcast_from_rank0(|| {
            ran = true;
            Ok::<_, Error>(world.rank() + 40)
        });
        assert_eq!((shared.unwrap(), ran), (40, world.is_main()));
        let refused: Result<i32> = world.broadcast_from_rank0(|| Err(Error::data("no data")));
        let told = refused.unwrap_err().to_string();
        assert_eq!(told.starts_with("stopped because of rank 0: no data"), !world.is_main());

        let own = if world.rank() == 2 { Err(Error::data("disk full")) } else { Ok(()) };
        let told = world.all_ok(own).unwrap_err().to_string();
        let expected = if world.rank() == 2 { "disk full" } else { "rank 2: disk full" };
        assert!(told.ends_with(expected), "{told}");
        // After an error that was agreed on, everything still works.
        assert_eq!(world.all_ok(Ok::<_, Error>(5)).unwrap(), 5);

        // Strided tensors are sent as well as dense ones; integers too.
        let whole = Tensor::zeros([3, 4], (Kind::Int64, Device::Cpu)) + world.rank() as i64 + 7;
        let column = whole.select(1, 2);
        world.broadcast(&BTreeMap::from([("column".to_owned(), column)])).unwrap();
        let sum = whole.sum(Kind::Int64).int64_value(&[]);
        assert_eq!(sum, 9 * (7 + world.rank() as i64) + 3 * 7);
    });
}

/// A batch norm of `channels` with weights and statistics of its own, in double precision.
fn batch_norm(channels: i64) -> (nn::VarStore, BatchNorm2d) {
    let mut store = nn::VarStore::new(Device::Cpu);
    let norm = BatchNorm2d::new(&store.root(), channels);
    store.double();
    tch::no_grad(|| {
        for (name, mut variable) in store.variables() {
            if variable.is_floating_point() {
                let start = name.len() as f64 / 20.0;
                let values = Tensor::arange(channels, (Kind::Double, Device::Cpu)) * 0.3 + start;
                variable.copy_(&values);
            }
        }
    });
    (store, norm)
}

/// What a norm gives for `x`, and after backward from a weighted sum of it: x's gradient, the
/// parameters', and the running statistics.
fn passes(
    norm: &BatchNorm2d,
    store: &nn::VarStore,
    x: &FeatureMap,
    mode: &Mode,
    weights: &Tensor,
) -> BTreeMap<String, Tensor> {
    let leaf = x.tensor().detach().set_requires_grad(true);
    let x = x.map(|_| leaf.shallow_clone());
    let y = norm.forward(&x, mode).tensor().shallow_clone();
    (&y * weights).sum(Kind::Double).backward();
    let mut found = BTreeMap::from([("y".to_owned(), y.detach()), ("x.grad".into(), leaf.grad())]);
    for (name, variable) in store.variables() {
        let value =
            if variable.requires_grad() { variable.grad() } else { variable.shallow_clone() };
        found.insert(name, value.copy());
    }
    found
}

/// Each rank has its rows of `x`; the same comes out as of one process that has all.
fn compare(
    world: &ProcessGroup,
    x: &Tensor,
    rows: std::ops::Range<i64>,
    of: impl Fn(&Tensor) -> FeatureMap,
) {
    let channels = x.size()[1];
    let weights = Tensor::linspace(-1.0, 1.3, x.numel() as i64, (Kind::Double, Device::Cpu));
    let weights = weights.sin().view_as(x);
    let (store, norm) = batch_norm(channels);
    let alone =
        passes(&norm, &store, &FeatureMap::Grid(x.shallow_clone()), &Mode::train(), &weights);

    let own = |whole: &Tensor| whole.narrow(0, rows.start, rows.end - rows.start).contiguous();
    let (store, norm) = batch_norm(channels);
    let mode = Mode::train().with_sync_batch_norm(world.sync_batch_norm());
    let found = passes(&norm, &store, &of(&own(x)), &mode, &own(&weights));
    for (name, value) in &found {
        let expected = match name.as_str() {
            "y" | "x.grad" => own(&alone[name]),
            _ => alone[name].shallow_clone(),
        };
        let mut value = value.shallow_clone();
        if name == "weight" || name == "bias" {
            // Each process has its own part of these; gradients are averaged elsewhere.
            let mut sum: Vec<f64> = Vec::try_from(&value).unwrap();
            world.sum(&mut sum).unwrap();
            value = Tensor::from_slice(&sum);
        }
        // Values around 1e4 with deviations of 2 lose four of float64's sixteen digits when the
        // mean is taken off, and a gradient two more in its sums.
        let difference = apart(&value, &expected);
        assert!(difference < 1e-10, "{name}: {difference:e}");
    }
}

#[test]
fn shared_batch_norm_is_batch_norm_over_everything() {
    together("shared_batch_norm_is_batch_norm_over_everything", 3, |world| {
        tch::manual_seed(1);
        // Far from zero, where a difference of squares would lose all digits.
        let x = Tensor::randn([8, 5, 3, 4], (Kind::Double, Device::Cpu)) * 2.0 + 1e4;
        let grid = |x: &Tensor| FeatureMap::Grid(x.shallow_clone());
        // Uneven shares, and one without any image.
        for ends in [[0, 3, 5, 8], [0, 5, 5, 8], [0, 0, 1, 8]] {
            let rows = ends[world.rank()]..ends[world.rank() + 1];
            compare(world, &x, rows, grid);
        }
        // Channels-last memory.
        let last = x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
        let rows = [0..3, 3..5, 5..8][world.rank()].clone();
        compare(world, &last, rows, |x| {
            FeatureMap::Grid(x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]))
        });
    });
}

#[test]
fn packed_patches_count_one_by_one() {
    together("packed_patches_count_one_by_one", 2, |world| {
        tch::manual_seed(2);
        // Visible patches by rank: 3 of 8 and 5 of 8, all of 2×2 positions.
        let x = Tensor::randn([8, 4, 2, 2], (Kind::Double, Device::Cpu));
        let visible = [3i64, 5][world.rank()];
        let mask = Tensor::arange(8, (Kind::Int64, Device::Cpu)).lt(visible).view([2, 1, 2, 2]);
        let mask = PatchMask::from_active(&mask).unwrap();
        let rows = [0..3, 3..8][world.rank()].clone();
        compare(world, &x, rows, |x| FeatureMap::Patches {
            packed: x.shallow_clone(),
            mask: Rc::clone(&mask),
        });
    });
}

#[test]
fn half_precision_keeps_statistics_in_float32() {
    together("half_precision_keeps_statistics_in_float32", 2, |world| {
        tch::manual_seed(3);
        let x = Tensor::randn([4, 6, 8, 8], tch::kind::FLOAT_CPU) * 3.0 + 40.0;
        let own = x.narrow(0, 2 * world.rank() as i64, 2).to_kind(Kind::BFloat16);
        let all = x.to_kind(Kind::BFloat16).to_kind(Kind::Float);
        let store = nn::VarStore::new(Device::Cpu);
        let norm = BatchNorm2d::new(&store.root(), 6);
        let mode = Mode::train().with_sync_batch_norm(world.sync_batch_norm());
        let y = norm.forward(&FeatureMap::Grid(own), &mode);
        assert_eq!(y.kind(), Kind::BFloat16);
        let mean = all.mean_dim([0i64, 2, 3].as_slice(), false, Kind::Float) * 0.1;
        // Float32 sums of values around 40; a bfloat16 statistic would be off by 1e-3.
        assert!(apart(&store.variables()["running_mean"], &mean) < 1e-5);
    });
}

#[test]
fn gradients_are_those_of_all_images_together() {
    together("gradients_are_those_of_all_images_together", 2, |world| {
        tch::manual_seed(4);
        let x = Tensor::randn([8, 6], (Kind::Double, Device::Cpu));
        let mut store = nn::VarStore::new(Device::Cpu);
        let root = store.root();
        let hidden = nn::linear(&root / "hidden", 6, 5, Default::default());
        let unused = nn::linear(&root / "unused", 3, 3, Default::default());
        let head = nn::linear(&root / "head", 5, 1, Default::default());
        store.double();
        let loss = |x: &Tensor| x.apply(&hidden).tanh().apply(&head).square().mean(Kind::Double);
        let gradients = Gradients::new(world, &store).unwrap();
        assert!(gradients.buckets().unwrap().iter().sum::<i64>() > 0);
        // Twice: the buckets are used again. In two parts, the first without sending.
        for _ in 0..2 {
            for (_, variable) in store.variables() {
                variable.grad().defined().then(|| variable.grad().zero_());
            }
            gradients.begin().unwrap();
            for part in 0..2 {
                let own = x.narrow(0, 4 * part + 2 * world.rank() as i64, 2);
                gradients.backward(&(loss(&own) / 2.0), part == 1).unwrap();
            }
            let found: BTreeMap<_, _> =
                store.variables().into_iter().map(|(name, v)| (name, v.grad())).collect();
            let wanted = Tensor::run_backward(
                &[loss(&x)],
                &[&hidden.ws, hidden.bs.as_ref().unwrap(), &head.ws, head.bs.as_ref().unwrap()],
                false,
                false,
            );
            let names = ["hidden.weight", "hidden.bias", "head.weight", "head.bias"];
            for (name, wanted) in names.into_iter().zip(wanted) {
                let difference = apart(&found[name], &wanted);
                assert!(difference < 1e-12, "{name}: {difference:e}");
            }
            assert!(!found["unused.weight"].defined(), "what is not used has no gradient");
        }
        assert!(unused.ws.requires_grad());
    });
}

#[test]
fn processes_with_other_parameters_are_refused() {
    together("processes_with_other_parameters_are_refused", 2, |world| {
        let store = nn::VarStore::new(Device::Cpu);
        nn::linear(store.root(), 3, 2 + world.rank() as i64, Default::default());
        let refused = Gradients::new(world, &store).err().expect("they differ").to_string();
        let difference = "bias is [2] of Float on rank 0, [3] of Float on rank 1";
        assert!(refused.contains(difference), "{refused}");
        world.barrier().unwrap();
    });
}

#[test]
fn a_gpu_that_cannot_be_used_together_is_refused_by_all() {
    together("a_gpu_that_cannot_be_used_together_is_refused_by_all", 2, |world| {
        let refusal = |device| world.use_device(device).unwrap_err().to_string();
        let told = refusal(Device::Cuda(0));
        assert!(told.starts_with("ranks 0 and 1 have the same GPU, Cuda(0)"), "{told}");
        let told = refusal(if world.is_main() { Device::Cuda(0) } else { Device::Cpu });
        assert!(told.starts_with("rank 0 has device Cuda(0), rank 1 has Cpu"), "{told}");

        if cfg!(feature = "nccl") && tch::Cuda::device_count() > 0 {
            return;
        }
        let told = refusal(Device::Cuda(world.rank()));
        let reason = if cfg!(feature = "nccl") { "no GPUs found" } else { "built without NCCL" };
        let device = format!("cuda:{}", world.rank());
        assert!(told.contains(reason) && told.contains(&device), "{told}");
        assert!(told.contains("--device cpu"), "{told}");
        world.use_device(Device::Cpu).unwrap();
        world.barrier().unwrap();
    });
}

#[test]
fn whoever_does_not_come_is_named() {
    if std::env::var_os(CHILD).is_some() {
        return;
    }
    let launch = engine::distributed::Launch::from_lookup(&|name| {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        match name {
            "RANK" => Some("1".into()),
            "WORLD_SIZE" => Some("2".into()),
            "MASTER_ADDR" => Some("no.such.host.invalid".into()),
            "MASTER_PORT" => Some(port.to_string()),
            _ => None,
        }
    });
    let refused = ProcessGroup::join(launch.unwrap().unwrap(), Duration::from_secs(1)).unwrap_err();
    let told = refused.to_string();
    assert!(told.contains("cannot meet the others at no.such.host.invalid"), "{told}");
}
