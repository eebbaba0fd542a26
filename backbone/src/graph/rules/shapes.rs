//! Operators that move elements: views, permutations, joins and splits.

use super::super::axes::{Axis, Layout, reshape, settled};
use super::{Rules, Verdict, list};

impl Rules<'_> {
    /// The verdict on an operator of this kind, if `name` is one.
    pub(super) fn shape(&mut self, name: &str) -> Option<Verdict> {
        Some(match name {
            "view" | "reshape" | "flatten" | "unflatten" | "reshape_as" | "_unsafe_view"
            | "view_as" => self.view(),
            "squeeze" => self.squeeze(),
            "unsqueeze" => self.unsqueeze(),
            "permute" | "transpose" | "t" | "swapaxes" | "numpy_T" => self.permute(name),
            "expand" | "broadcast_to" | "repeat" => self.expand(),
            "cat" | "concat" | "concatenate" => self.join(),
            "stack" => self.stack(),
            "chunk" | "split" | "split_with_sizes" | "tensor_split" => self.split(),
            "unbind" => self.without_axis("splits along"),
            "select" => self.without_axis("takes one of"),
            "slice" | "narrow" => self.slice(),
            "new_empty" | "new_ones" | "new_zeros" | "new_full" => self.constant_of_images(),
            _ => return None,
        })
    }

    pub(super) fn settled(&mut self, layout: Layout) -> Layout {
        settled(layout, &mut self.analysis.extents)
    }

    fn view(&mut self) -> Verdict {
        let Some(input) = self.call.first() else { return self.guess() };
        let (layout, size) = (self.layout(input).clone(), self.size().to_vec());
        reshape(&layout, &size, &mut self.analysis.extents).into()
    }

    fn squeeze(&mut self) -> Verdict {
        let Some(input) = self.call.first() else { return self.guess() };
        let layout = self.layout(input).clone();
        let dims = self.call.ints("dim");
        let leaves = |index: usize| {
            let named = dims
                .as_ref()
                .is_none_or(|dims| dims.iter().any(|&dim| layout.axis(dim) == Some(index)));
            named && layout.size[index] == 1
        };
        let kept: Vec<usize> = (0..layout.axes.len()).filter(|&index| !leaves(index)).collect();
        let lost = (0..layout.axes.len())
            .filter(|&index| leaves(index))
            .find(|&index| layout.axes[index] != Axis::Channels);
        let verdict = Verdict::new(layout.reordered(&kept));
        verdict.refused_if(lost.map(|index| {
            format!(
                "it drops the axis of {} because it had one at export",
                layout.axes[index].name()
            )
        }))
    }

    fn unsqueeze(&mut self) -> Verdict {
        let Some(input) = self.call.first() else { return self.guess() };
        let layout = self.layout(input).clone();
        let rank = layout.axes.len() as i64 + 1;
        let dim = self.call.int("dim").unwrap_or(0);
        let at = (if dim < 0 { dim + rank } else { dim }).clamp(0, rank - 1) as usize;
        let mut axes = layout.axes;
        axes.insert(at, Axis::Channels);
        Verdict::new(Layout::new(axes, self.size()))
    }

    fn permute(&mut self, name: &str) -> Verdict {
        let Some(input) = self.call.first() else { return self.guess() };
        let layout = self.layout(input).clone();
        let rank = layout.axes.len();
        let mut order: Vec<usize> = (0..rank).collect();
        let swapped = |a: &str, b: &str| {
            Some((layout.axis(self.call.int(a)?)?, layout.axis(self.call.int(b)?)?))
        };
        match name {
            "permute" => {
                let dims = self.call.ints("dims").unwrap_or_default();
                order = dims.iter().filter_map(|&dim| layout.axis(dim)).collect();
            }
            "transpose" => match swapped("dim0", "dim1") {
                Some((a, b)) => order.swap(a, b),
                None => return self.guess(),
            },
            "swapaxes" => match swapped("axis0", "axis1") {
                Some((a, b)) => order.swap(a, b),
                None => return self.guess(),
            },
            _ => order.reverse(),
        }
        if order.len() != rank {
            return self.guess();
        }
        Verdict::new(layout.reordered(&order))
    }

    fn expand(&mut self) -> Verdict {
        let Some(input) = self.call.first() else { return self.guess() };
        let layout = self.layout(input).clone();
        let size = self.size().to_vec();
        let Some(more) = size.len().checked_sub(layout.axes.len()) else { return self.guess() };
        let mut axes = vec![Axis::Channels; more];
        axes.extend(&layout.axes);
        let mut refusal = None;
        for (index, axis) in axes.iter_mut().enumerate() {
            let old = index.checked_sub(more).map_or(1, |at| layout.size[at]);
            if old == size[index] {
                continue;
            }
            if axis.is_spatial() || old != 1 {
                refusal = Some(format!("it repeats the {}", axis.name()));
                continue;
            }
            let side = size.len() - index;
            if index == 0 && size[0] == self.images {
                *axis = Axis::Images(1);
            } else if size.len() >= 4
                && side <= 2
                && let Some(extent) = self.analysis.extents.with_side(size[index], side == 2)
            {
                *axis = if side == 2 { Axis::Height(extent) } else { Axis::Width(extent) };
            }
        }
        let layout = Layout::new(axes, &size);
        // Both sides must be of one grid.
        if let [.., Axis::Height(_), Axis::Width(_)] = layout.axes[..]
            && let [.., height, width] = size[..]
            && let Some(extent) = self.analysis.extents.with_size((height, width))
        {
            let mut axes = layout.axes.clone();
            let rank = axes.len();
            axes[rank - 2] = Axis::Height(extent);
            axes[rank - 1] = Axis::Width(extent);
            return Verdict::new(Layout::new(axes, &size)).refused_if(refusal);
        }
        Verdict::new(layout).refused_if(refusal)
    }

    fn join(&mut self) -> Verdict {
        let parts: Vec<Layout> =
            list(self.call, "tensors").iter().map(|&id| self.layout(id).clone()).collect();
        let size = self.size().to_vec();
        let dim = self.call.int("dim").unwrap_or(0);
        let mut axes = vec![Axis::Channels; size.len()];
        for part in parts.iter().filter(|part| part.axes.len() == size.len()) {
            for (axis, &own) in axes.iter_mut().zip(&part.axes) {
                if own != Axis::Channels {
                    *axis = own;
                }
            }
        }
        let layout = Layout::new(axes, &size);
        let along = layout.axis(dim).map(|index| layout.axes[index]);
        let per_position = parts.iter().any(|part| {
            part.axes.len() == size.len()
                && part
                    .axes
                    .iter()
                    .zip(&layout.axes)
                    .any(|(own, axis)| *own == Axis::Channels && axis.is_spatial())
        });
        let refusal = match along {
            Some(axis) if axis != Axis::Channels => {
                Some(format!("it joins along the {}", axis.name()))
            }
            _ if per_position => Some("it joins a parameter for every position".into()),
            _ => None,
        };
        Verdict::new(layout).refused_if(refusal)
    }

    fn stack(&mut self) -> Verdict {
        let Some(first) = list(self.call, "tensors").first().copied() else { return self.guess() };
        let mut axes = self.layout(first).axes.clone();
        let rank = axes.len() as i64 + 1;
        let dim = self.call.int("dim").unwrap_or(0);
        let at = (if dim < 0 { dim + rank } else { dim }).clamp(0, rank - 1) as usize;
        axes.insert(at, Axis::Channels);
        Verdict::new(Layout::new(axes, self.size()))
    }

    fn split(&mut self) -> Verdict {
        let Some(input) = self.call.first() else { return self.guess() };
        let layout = self.layout(input).clone();
        let dim = layout.axis(self.call.int("dim").unwrap_or(0));
        let axis = dim.map_or(Axis::Channels, |dim| layout.axes[dim]);
        let parts = self.sizes.iter().map(|size| Layout::new(layout.axes.clone(), size)).collect();
        let refusal =
            (axis != Axis::Channels).then(|| format!("it splits along the {}", axis.name()));
        Verdict::many(parts).refused_if(refusal)
    }

    /// Parts without the axis that they are taken from.
    fn without_axis(&mut self, what: &str) -> Verdict {
        let Some(input) = self.call.first() else { return self.guess() };
        let layout = self.layout(input).clone();
        let Some(dim) = layout.axis(self.call.int("dim").unwrap_or(0)) else {
            return self.guess();
        };
        let axis = layout.axes[dim];
        let mut axes = layout.axes;
        axes.remove(dim);
        let parts = self.sizes.iter().map(|size| Layout::new(axes.clone(), size)).collect();
        let refusal = (axis != Axis::Channels).then(|| format!("it {what} the {}", axis.name()));
        Verdict::many(parts).refused_if(refusal)
    }

    fn slice(&mut self) -> Verdict {
        let Some(input) = self.call.first() else { return self.guess() };
        let layout = self.layout(input).clone();
        let size = self.size().to_vec();
        let Some(dim) = layout.axis(self.call.int("dim").unwrap_or(0)) else {
            return self.guess();
        };
        let axis = layout.axes[dim];
        let sliced = Layout::new(layout.axes.clone(), &size);
        if axis == Axis::Channels || size[dim] == layout.size[dim] {
            return Verdict::new(sliced);
        }
        let step = self.call.int("step").unwrap_or(1);
        let start = self.call.int("start").unwrap_or(0);
        let every = step > 1 && (0..step).contains(&start) && size[dim] * step == layout.size[dim];
        if matches!(axis, Axis::Height(_) | Axis::Width(_)) && every {
            // One position of every block.
            let sliced = self.settled(sliced);
            return Verdict::new(sliced);
        }
        Verdict::new(sliced).refused(format!("it cuts a part out of the {}", axis.name()))
    }

    /// A tensor that an operator makes of the batch's size alone.
    fn constant_of_images(&mut self) -> Verdict {
        let size = self.size();
        let mut layout = Layout::fixed(size);
        if size.first() == Some(&self.images) {
            layout.axes[0] = Axis::Images(1);
            if let [_, _, height, width] = size[..]
                && (height, width) != (1, 1)
                && let Some(extent) = self.analysis.extents.with_size((height, width))
            {
                layout = Layout::map(size, extent);
            }
        }
        Verdict::new(layout)
    }
}
