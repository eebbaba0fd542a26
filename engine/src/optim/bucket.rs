//! Parameters gathered into buckets: one kernel launch updates many small
//! tensors, while large ones are worked on where they lie, without a copy.

use std::collections::{BTreeMap, BTreeSet};

use tch::{Device, Kind, Tensor};

use super::ParamGroup;
use crate::bridge::undefine_gradient;
use crate::{Error, Result};

/// From this many elements on, a tensor is a bucket of its own: the launch it
/// would save costs less than the copy of its gradient.
const LARGE: usize = 1 << 16;
/// A bucket of small tensors is closed when it holds this many elements, so
/// that on a CPU one pass of an update stays within the caches.
const FULL: usize = 1 << 20;

/// All parameters of an optimizer that keeps `S` state tensors for each.
pub(super) struct Buckets<const S: usize> {
    buckets: Vec<Bucket<S>>,
    state_names: [&'static str; S],
}

/// Parameters of one group whose states lie in one tensor for each kind of
/// state: in the parameter's own shape and layout where it is one, flat and
/// concatenated where there are several.
struct Bucket<const S: usize> {
    params: Vec<(String, Tensor)>,
    lr_scale: f64,
    weight_decay_scale: f64,
    state: [Tensor; S],
    /// Updates each parameter has had; only kept by optimizers that count
    /// them for each parameter.
    steps: Vec<u64>,
}

/// Parameters to update together, with their gradients and states.
#[derive(Debug)]
pub struct ParamBatch<const S: usize> {
    /// All of one group.
    pub params: Vec<Tensor>,
    /// In the parameter's shape, or of several `[n]` over all their elements in turn.
    pub grad: Tensor,
    /// Shaped as `grad`; views of the optimizer's own, in the order of
    /// [`STATE_NAMES`](super::UpdateRule::STATE_NAMES).
    pub state: [Tensor; S],
    /// The group's learning rate.
    pub lr: f64,
    /// The group's weight decay.
    pub weight_decay: f64,
    /// Number of this update, from 1, where the rule counts steps.
    pub step: u64,
}

impl<const S: usize> ParamBatch<S> {
    /// Whether kernels for processors can walk these tensors' memory from end
    /// to end; lays the gradient out as its parameter if need be.
    pub(super) fn make_dense(&mut self) -> bool {
        if self.grad.device() != Device::Cpu || !self.params.iter().all(is_dense) {
            return false;
        }
        let [param] = self.params.as_slice() else {
            return self.params.iter().all(Tensor::is_contiguous);
        };
        if !same_layout(&self.grad, param) {
            let mut grad = param.zeros_like();
            grad.copy_(&self.grad);
            self.grad = grad;
        }
        self.state.iter().all(|state| same_layout(state, param))
    }

    /// Converts a bfloat16 gradient to its parameter's dtype.
    pub(super) fn grad_to_param_dtype(&mut self) {
        self.grad = self.grad.to_kind(self.params[0].kind());
    }

    /// Views of `tensor`, which is shaped as `grad`, one for each parameter
    /// and in its shape.
    pub fn split(&self, tensor: &Tensor) -> Vec<Tensor> {
        split(tensor, &self.params)
    }
}

/// Stride and size of every side that is longer than one element: the stride of
/// one that isn't says nothing.
fn sides(tensor: &Tensor) -> Vec<(i64, i64)> {
    let mut sides: Vec<(i64, i64)> = tensor.stride().into_iter().zip(tensor.size()).collect();
    sides.retain(|(_, size)| *size != 1);
    sides
}

/// Whether two tensors of one shape have their elements in the same order.
fn same_layout(a: &Tensor, b: &Tensor) -> bool {
    sides(a) == sides(b)
}

/// Whether the elements fill a stretch of memory, in whatever order.
fn is_dense(tensor: &Tensor) -> bool {
    let mut sides = sides(tensor);
    sides.sort_unstable();
    let mut next = 1;
    sides.into_iter().all(|(stride, size)| {
        let dense = stride == next;
        next *= size;
        dense
    })
}

fn split(tensor: &Tensor, params: &[Tensor]) -> Vec<Tensor> {
    let [_, _, ..] = params else { return vec![tensor.shallow_clone()] };
    let mut start = 0;
    params
        .iter()
        .map(|param| {
            let length = param.numel() as i64;
            start += length;
            tensor.narrow(0, start - length, length).view(param.size().as_slice())
        })
        .collect()
}

impl<const S: usize> Buckets<S> {
    /// Buckets for `groups`, with all states zero.
    ///
    /// # Errors
    /// [`Error::Input`] for no parameters at all, a repeated name or tensor,
    /// a tensor that is empty or no leaf with gradients, or one that is not a
    /// float32 or float64 tensor on the first one's device.
    pub fn new(groups: Vec<ParamGroup>, state_names: [&'static str; S]) -> Result<Self> {
        check(&groups)?;
        let mut buckets = Vec::new();
        for group in groups {
            let (lr_scale, weight_decay_scale) = (group.lr_scale, group.weight_decay_scale);
            for params in partition(group.params) {
                let state = std::array::from_fn(|_| empty_state(&params));
                let steps = vec![0; params.len()];
                buckets.push(Bucket { params, lr_scale, weight_decay_scale, state, steps });
            }
        }
        Ok(Buckets { buckets, state_names })
    }

    /// Everything that has a gradient. The learning rate and weight decay are multiplied by each
    /// group's scale; gradients are perhaps in bfloat16.
    pub fn batches(&self, lr: f64, weight_decay: f64) -> Vec<ParamBatch<S>> {
        self.buckets.iter().flat_map(|bucket| bucket.batches(lr, weight_decay)).collect()
    }

    /// Counts an update for every parameter that has a gradient.
    pub fn count_steps(&mut self) {
        for bucket in &mut self.buckets {
            for ((_, param), steps) in bucket.params.iter().zip(&mut bucket.steps) {
                *steps += u64::from(param.grad().defined());
            }
        }
    }

    pub fn gradients(&self) -> Vec<Tensor> {
        self.params().map(|(_, param)| param.grad()).filter(Tensor::defined).collect()
    }

    /// Undefines all gradients.
    pub fn zero_grad(&mut self) {
        self.params().for_each(|(_, param)| undefine_gradient(param));
    }

    /// `<state name>.<parameter>` and the state in the parameter's shape.
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        let mut named = BTreeMap::new();
        for bucket in &self.buckets {
            let params: Vec<Tensor> =
                bucket.params.iter().map(|(_, p)| p.shallow_clone()).collect();
            for (state_name, state) in self.state_names.iter().zip(&bucket.state) {
                let views = split(state, &params);
                for ((name, _), view) in bucket.params.iter().zip(views) {
                    named.insert(format!("{state_name}.{name}"), view);
                }
            }
        }
        named
    }

    /// The number of updates of each parameter, as int64 `step.<parameter>`.
    pub fn steps(&self) -> BTreeMap<String, Tensor> {
        self.buckets
            .iter()
            .flat_map(|bucket| bucket.params.iter().zip(&bucket.steps))
            .map(|((name, _), &steps)| (format!("step.{name}"), Tensor::from(steps as i64)))
            .collect()
    }

    /// Copies `state` in, after [`check_state`] has seen that it fits.
    pub fn load(&mut self, state: &BTreeMap<String, Tensor>) {
        tch::no_grad(|| {
            for (name, mut view) in self.state() {
                view.copy_(&state[&name]);
            }
        });
    }

    /// Takes the counts back that [`Buckets::steps`] gave.
    pub fn load_steps(&mut self, state: &BTreeMap<String, Tensor>) {
        for bucket in &mut self.buckets {
            for ((name, _), steps) in bucket.params.iter().zip(&mut bucket.steps) {
                *steps = state[&format!("step.{name}")].int64_value(&[]) as u64;
            }
        }
    }

    fn params(&self) -> impl Iterator<Item = &(String, Tensor)> {
        self.buckets.iter().flat_map(|bucket| &bucket.params)
    }
}

impl<const S: usize> Bucket<S> {
    /// One batch where all parameters are in step and have gradients; else one for each that has a
    /// gradient.
    fn batches(&self, lr: f64, weight_decay: f64) -> Vec<ParamBatch<S>> {
        let batch = |params, grad, state, steps: u64| ParamBatch {
            params,
            grad,
            state,
            lr: lr * self.lr_scale,
            weight_decay: weight_decay * self.weight_decay_scale,
            step: steps + 1,
        };
        let grads: Vec<Tensor> = self.params.iter().map(|(_, param)| param.grad()).collect();
        let params: Vec<Tensor> = self.params.iter().map(|(_, p)| p.shallow_clone()).collect();
        let together = grads.iter().all(Tensor::defined)
            && self.steps.iter().all(|steps| *steps == self.steps[0]);
        if together {
            let grad = match grads.as_slice() {
                [grad] => grad.shallow_clone(),
                several => {
                    let kind = params[0].kind();
                    let flat = several.iter().map(|grad| grad.reshape(-1).to_kind(kind));
                    Tensor::cat(&flat.collect::<Vec<_>>(), 0)
                }
            };
            let state = std::array::from_fn(|i| self.state[i].shallow_clone());
            return vec![batch(params, grad, state, self.steps[0])];
        }
        let states: [Vec<Tensor>; S] = std::array::from_fn(|i| split(&self.state[i], &params));
        grads
            .into_iter()
            .zip(&params)
            .enumerate()
            .filter(|(_, (grad, _))| grad.defined())
            .map(|(i, (grad, param))| {
                let state = std::array::from_fn(|s| states[s][i].shallow_clone());
                batch(vec![param.shallow_clone()], grad, state, self.steps[i])
            })
            .collect()
    }
}

/// Cuts a group's parameters into buckets, in order: a large tensor alone,
/// small ones together.
fn partition(params: Vec<(String, Tensor)>) -> Vec<Vec<(String, Tensor)>> {
    let mut buckets = Vec::new();
    let mut small = Vec::new();
    let mut filled = 0;
    for (name, param) in params {
        // Flat memory in which several lie is in the order of contiguous ones.
        if param.numel() >= LARGE || !param.is_contiguous() {
            buckets.push(vec![(name, param)]);
            continue;
        }
        filled += param.numel();
        small.push((name, param));
        if filled >= FULL {
            buckets.push(std::mem::take(&mut small));
            filled = 0;
        }
    }
    if !small.is_empty() {
        buckets.push(small);
    }
    buckets
}

fn empty_state(params: &[(String, Tensor)]) -> Tensor {
    match params {
        // Keeps a channels-last layout, so that state, gradient and parameter
        // are walked in the same order.
        [(_, param)] => tch::no_grad(|| param.zeros_like()),
        several => {
            let length: usize = several.iter().map(|(_, param)| param.numel()).sum();
            let (kind, device) = (several[0].1.kind(), several[0].1.device());
            Tensor::zeros([length as i64], (kind, device))
        }
    }
}

fn check(groups: &[ParamGroup]) -> Result<()> {
    let mut all = groups.iter().flat_map(|group| &group.params);
    let Some((_, first)) = all.clone().next() else {
        return Err(Error::invalid("the list of parameters", "empty", "an optimizer needs some"));
    };
    let mut names = BTreeSet::new();
    let mut storages = BTreeSet::new();
    all.try_for_each(|(name, param)| {
        let broken = |value: String, rule: &str| {
            Err(Error::invalid(format!("parameter {name}"), value, rule))
        };
        if !names.insert(name) {
            return broken("given twice".into(), "each parameter belongs to one group");
        }
        if param.numel() == 0 {
            return broken("empty".into(), "a parameter has at least one element");
        }
        if !storages.insert(param.data_ptr()) {
            let value = "the same tensor as another".into();
            return broken(value, "a shared tensor is given once, or it would be updated twice");
        }
        if !param.requires_grad() || !param.is_leaf() {
            return broken(
                "no leaf tensor that requires gradients".into(),
                "only those can be trained",
            );
        }
        if !matches!(param.kind(), Kind::Float | Kind::Double) || param.kind() != first.kind() {
            let rule =
                "parameters are float32, or all float64; lower precision is for the forward pass";
            return broken(format!("{:?}", param.kind()), rule);
        }
        if param.device() != first.device() {
            return broken(format!("on {:?}", param.device()), "all lie on the first one's device");
        }
        Ok(())
    })
}

/// Whether `given` has exactly the names, shapes and kinds of `own`.
pub(super) fn check_state(
    own: &BTreeMap<String, Tensor>,
    given: &BTreeMap<String, Tensor>,
) -> Result<()> {
    for (name, tensor) in own {
        let operand = format!("optimizer state {name}");
        let Some(other) = given.get(name) else {
            return Err(Error::invalid(operand, "missing", "every parameter needs its state"));
        };
        let wanted = (tensor.size(), tensor.kind());
        let found = (other.size(), other.kind());
        if wanted != found {
            let rule = format!("the optimizer needs {wanted:?}");
            return Err(Error::invalid(operand, format!("{found:?}"), rule));
        }
    }
    match given.keys().find(|name| !own.contains_key(*name)) {
        None => Ok(()),
        Some(name) => {
            let rule = "this optimizer has no such state: another optimizer or model wrote it";
            Err(Error::invalid("optimizer state", name, rule))
        }
    }
}
