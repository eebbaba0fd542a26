//! Gradients averaged over all processes.

use std::collections::HashMap;

use cxx::UniquePtr;
use tch::Tensor;
use tch::nn::VarStore;

use super::ProcessGroup;
use crate::bridge::{borrow, ffi, list};
use crate::{Error, Result};

/// Runs backward passes whose gradients are the same on all processes: the average of everybody's.
/// Buckets of gradients are sent while the pass computes the next ones (c10d's `Reducer`, that of
/// DistributedDataParallel).
pub struct Gradients {
    world: ProcessGroup,
    /// Of several processes.
    reducer: Option<UniquePtr<ffi::GradientReducer>>,
}

impl Gradients {
    /// Of one process, whose own are all.
    pub fn alone() -> Self {
        Self { world: ProcessGroup::alone(), reducer: None }
    }

    /// For the parameters of `store` that learn, which are the same on all processes and have
    /// their final device and type. A pass may leave some without a gradient: they keep none.
    ///
    /// # Errors
    /// [`Error::Distributed`] when processes have other parameters.
    pub fn new(world: &ProcessGroup, store: &VarStore) -> Result<Self> {
        let world = world.clone();
        if world.is_alone() {
            return Ok(Self { world, reducer: None });
        }
        let (names, tensors): (Vec<String>, Vec<Tensor>) = in_order_of_creation(store).unzip();
        check_same(&world, &names, &tensors)?;
        let list = list(&tensors);
        let what = "preparing gradients";
        let reducer = world.operate(what, |group| ffi::gradient_reducer(group, &list, &names))?;
        Ok(Self { world, reducer: Some(reducer) })
    }

    /// To be called before a step's first forward pass.
    ///
    /// # Errors
    /// [`Error::Distributed`].
    pub fn begin(&self) -> Result<()> {
        let Some(reducer) = &self.reducer else { return Ok(()) };
        self.world.operate("preparing gradients", |_| reducer.begin())
    }

    /// Runs backward from the scalar `loss`. The gradients of the step's `last` pass, with those
    /// that passes before it have left, are averaged.
    ///
    /// # Errors
    /// [`Error::Distributed`]; [`Error::Backbone`] for what libtorch refuses.
    pub fn backward(&self, loss: &Tensor, last: bool) -> Result<()> {
        let Some(reducer) = &self.reducer else {
            return Ok(loss.f_backward().map_err(backbone::Error::from)?);
        };
        // This also tells of what failed in the forward pass, where nothing could be returned.
        self.world.operate("averaging gradients", |_| reducer.backward(borrow(loss), last))
    }

    /// Sizes of the buckets in bytes; none of one process.
    ///
    /// # Errors
    /// [`Error::Distributed`].
    pub fn buckets(&self) -> Result<Vec<i64>> {
        let Some(reducer) = &self.reducer else { return Ok(Vec::new()) };
        self.world.operate("reading buckets", |_| reducer.buckets())
    }

    /// How long backward passes took, and what of the communication they hid; none of one
    /// process. c10d samples the first ten steps, then every hundredth.
    ///
    /// # Errors
    /// [`Error::Distributed`].
    pub fn timings(&self) -> Result<Option<ffi::Timings>> {
        let Some(reducer) = &self.reducer else { return Ok(None) };
        self.world.operate("reading timings", |_| reducer.timings()).map(Some)
    }
}

/// Parameters that learn, by name, in the order in which the network was built: about the reverse
/// of that in which a backward pass reaches them.
fn in_order_of_creation(store: &VarStore) -> impl Iterator<Item = (String, Tensor)> + use<> {
    let created = store.trainable_variables();
    let places: HashMap<usize, usize> = created
        .iter()
        .enumerate()
        .map(|(place, tensor)| (tensor.data_ptr() as usize, place))
        .collect();
    let mut named: Vec<(String, Tensor)> =
        store.variables().into_iter().filter(|(_, tensor)| tensor.requires_grad()).collect();
    named.sort_by_cached_key(|(name, tensor)| {
        (places.get(&(tensor.data_ptr() as usize)).copied().unwrap_or(usize::MAX), name.clone())
    });
    named.into_iter()
}

/// Refuses processes whose parameters differ from rank 0's, on all of them, by the first that does.
fn check_same(world: &ProcessGroup, names: &[String], tensors: &[Tensor]) -> Result<()> {
    let described = |(name, tensor): (&String, &Tensor)| {
        format!("{name} is {:?} of {:?}", tensor.size(), tensor.kind())
    };
    let own: Vec<String> = names.iter().zip(tensors).map(described).collect();
    let all = world.gather(&own)?;
    for (rank, other) in all.iter().enumerate() {
        let count = own.len().max(other.len());
        let of = |list: &[String], at: usize| list.get(at).cloned().unwrap_or("none is".into());
        let differs = (0..count).find(|&at| all[0].get(at) != other.get(at));
        if let Some(at) = differs {
            let (first, second) = (of(&all[0], at), of(other, at));
            let second = second.split_once(" is ").map_or(second.as_str(), |(_, what)| what);
            return Err(Error::Distributed(format!(
                "processes train other parameters: {first} on rank 0, {second} on rank {rank}; all \
                 need the same program and settings"
            )));
        }
    }
    Ok(())
}
