//! Operators over positions: convolutions, pools, norms, reductions, resizing.

use super::super::axes::{Axis, Extent, Layout};
use super::super::geometry;
use super::{Padding, Rules, Verdict};
use crate::layers::Sliding;

impl Rules<'_> {
    /// The verdict on an operator of this kind, if `name` is one.
    pub(super) fn spatial(&mut self, name: &str) -> Option<Verdict> {
        Some(match name {
            "conv2d" => self.convolution(),
            "conv1d" => self.over_vectors("a convolution along one side"),
            "max_pool2d" | "avg_pool2d" => self.pool(),
            "max_pool2d_with_indices" => {
                self.guess().refused("the indices of a max-pool are places on the grid")
            }
            "adaptive_avg_pool2d" | "adaptive_max_pool2d" => self.adaptive_pool(),
            "conv_transpose2d" => self.transposed_convolution(),
            "batch_norm" | "native_batch_norm" => self.pointwise(),
            "instance_norm" | "group_norm" => self.pointwise(),
            "layer_norm" | "rms_norm" => self.layer_norm(),
            "mean" | "sum" | "amax" | "amin" | "linalg_vector_norm" | "var" | "std" | "norm"
            | "max" | "min" | "var_mean" | "std_mean" | "logsumexp" | "prod" => self.reduction(),
            "pad" | "constant_pad_nd" | "reflection_pad2d" | "replication_pad2d" => self.pad(),
            "upsample_nearest2d" | "_upsample_nearest_exact2d" | "upsample_nearest_exact2d" => {
                self.resize(true)
            }
            "upsample_bilinear2d"
            | "upsample_bicubic2d"
            | "_upsample_bilinear2d_aa"
            | "_upsample_bicubic2d_aa" => self.resize(false),
            "pixel_shuffle" | "pixel_unshuffle" | "channel_shuffle" => self.shuffle(),
            "scaled_dot_product_attention" => self.attention(),
            "matmul" | "bmm" | "mm" | "baddbmm" | "einsum" => self.product(),
            "linear" | "addmm" => self.linear(),
            "softmax" | "_softmax" | "log_softmax" | "cumsum" | "flip" | "sort" | "glu"
            | "argmax" | "roll" => self.along_axes(),
            _ => return None,
        })
    }

    fn convolution(&mut self) -> Verdict {
        let Some(input) = self.call.value("input") else { return self.guess() };
        if !self.layout(input).is_spatial() {
            // Of image vectors [N, C, 1, 1].
            let mut layout = Layout::fixed(self.size());
            layout.axes[0] = self.layout(input).axes[0];
            return Verdict::new(layout);
        }
        let Some(weight) = self.call.value("weight").map(|id| self.layout(id).clone()) else {
            return self.guess();
        };
        let [_, _, height, width] = weight.size[..] else { return self.guess() };
        let sliding = geometry::convolution(self.call, (height, width));
        self.slide(input, sliding)
    }

    fn pool(&mut self) -> Verdict {
        let Some(input) = self.call.first() else { return self.guess() };
        let layout = self.layout(input).clone();
        if !layout.is_spatial() {
            return self.pointwise();
        }
        let [.., height, width] = self.size()[..] else { return self.guess() };
        let [.., rows, cols] = layout.size[..] else { return self.guess() };
        let sliding = geometry::pool(self.call);
        if (height, width) == (1, 1) && sliding.kernel == (rows, cols) {
            // All positions.
            let mut axes = layout.axes.clone();
            for axis in axes.iter_mut().filter(|axis| axis.is_spatial()) {
                *axis = Axis::Channels;
            }
            return Verdict::new(Layout::new(axes, self.size()));
        }
        self.slide(input, sliding)
    }

    /// A kernel that slides over the grid.
    fn slide(&mut self, input: usize, mut sliding: Sliding) -> Verdict {
        let layout = self.layout(input).clone();
        let Some(mut extent) = layout.map_extent() else {
            let reason = format!("it slides over {}", names(&layout));
            return self.guess().refused(reason).neighbours();
        };
        if let Some(before) = &self.analysis.paddings[input] {
            sliding = geometry::with_padding(sliding, before);
            extent = self.layout(before.source).map_extent().unwrap_or(extent);
        }
        let Sliding { kernel, stride, padding, padding_after, .. } = sliding;
        let fits = geometry::is_aligned(&sliding);
        let [.., height, width] = self.size()[..] else { return self.guess() };
        let old = self.analysis.extents.get(extent);
        let strided = old.stride.filter(|_| fits);
        let strided = strided.map(|old| (old.0 * stride.0, old.1 * stride.1));
        let id = self.analysis.extents.id(Extent { size: (height, width), stride: strided });
        let verdict = Verdict::new(Layout::map(self.size(), id)).neighbours();
        if !fits && old.stride.is_some() {
            return verdict.refused(format!(
                "its grid of {height}×{width} is not the {}×{} before it divided by the stride \
                 {}×{}: kernel {}×{}, padding {}+{} and {}+{}",
                old.size.0,
                old.size.1,
                stride.0,
                stride.1,
                kernel.0,
                kernel.1,
                padding.0,
                padding_after.0,
                padding.1,
                padding_after.1
            ));
        }
        verdict
    }

    fn adaptive_pool(&mut self) -> Verdict {
        let Some(input) = self.call.first() else { return self.guess() };
        let layout = self.layout(input).clone();
        let size = self.size().to_vec();
        if !layout.is_spatial() || size == layout.size {
            return self.pointwise();
        }
        let mut axes = layout.axes.clone();
        if size.ends_with(&[1, 1]) {
            for axis in axes.iter_mut().filter(|axis| axis.is_spatial()) {
                *axis = Axis::Channels;
            }
            return Verdict::many(vec![Layout::new(axes, &size); self.sizes.len()]);
        }
        let verdict = self.guess().neighbours();
        verdict.refused(format!("it pools to {:?} positions of the whole grid", &size[2..]))
    }

    fn transposed_convolution(&mut self) -> Verdict {
        self.resize(false)
    }

    /// Resizing; `local` where every output depends on one input.
    fn resize(&mut self, local: bool) -> Verdict {
        let Some(input) = self.call.first() else { return self.guess() };
        let layout = self.layout(input).clone();
        let [.., height, width] = self.size()[..] else { return self.guess() };
        if !layout.is_spatial() {
            // An image's vector is spread over all positions.
            return match self.analysis.extents.with_size((height, width)) {
                Some(extent) => Verdict::new(Layout::map(self.size(), extent)),
                None => self.guess().refused("it spreads a vector over a grid of its own"),
            };
        }
        let Some(extent) = layout.map_extent() else {
            let reason = format!("it resizes {}", names(&layout));
            return self.guess().refused(reason).neighbours();
        };
        let old = self.analysis.extents.get(extent);
        // By a whole factor, and never beyond the image's own grid.
        let part = |old: i64, new: i64, stride: i64| {
            if new % old == 0 && stride % (new / old) == 0 {
                Some(stride / (new / old))
            } else if new > 0 && old % new == 0 {
                Some(stride * (old / new))
            } else {
                None
            }
        };
        let stride = old.stride.and_then(|stride| {
            Some((part(old.size.0, height, stride.0)?, part(old.size.1, width, stride.1)?))
        });
        let id = self.analysis.extents.id(Extent { size: (height, width), stride });
        let verdict = Verdict::new(Layout::map(self.size(), id));
        let grows = height >= old.size.0 && width >= old.size.1;
        let verdict = if local && grows { verdict } else { verdict.neighbours() };
        if stride.is_none() && old.stride.is_some() {
            let (rows, cols) = old.size;
            return verdict.refused(format!(
                "it resizes {rows}×{cols} to {height}×{width} positions, which is no whole factor"
            ));
        }
        verdict
    }

    fn shuffle(&mut self) -> Verdict {
        let Some(input) = self.call.first() else { return self.guess() };
        let layout = Layout::new(self.layout(input).axes.clone(), self.size());
        let layout = self.settled(layout);
        Verdict::new(layout)
    }

    fn pad(&mut self) -> Verdict {
        let Some(input) = self.call.first() else { return self.guess() };
        let layout = self.layout(input).clone();
        let pads = self.call.ints("pad").or_else(|| self.call.ints("padding")).unwrap_or_default();
        let rank = layout.axes.len();
        let padded = |axis: usize| {
            let at = 2 * (rank - 1 - axis);
            (pads.get(at).copied().unwrap_or(0), pads.get(at + 1).copied().unwrap_or(0))
        };
        let touched: Vec<usize> = (0..rank).filter(|&axis| padded(axis) != (0, 0)).collect();
        if touched.iter().all(|&axis| !layout.axes[axis].is_spatial()) {
            return Verdict::new(Layout::new(layout.axes.clone(), self.size()));
        }
        let [.., height, width] = self.size()[..] else { return self.guess() };
        if layout.map_extent().is_none() {
            return self.guess().refused(format!("it pads {}", names(&layout)));
        }
        let mode = match self.call.operator.as_str() {
            "pad" => self.call.text("mode").unwrap_or("constant"),
            "constant_pad_nd" => "constant",
            _ => "other",
        };
        let constant = (mode == "constant").then(|| self.call.float("value").unwrap_or(0.0));
        let id = self.analysis.extents.id(Extent { size: (height, width), stride: None });
        let mut verdict = Verdict::new(Layout::map(self.size(), id));
        verdict.padding =
            Some(Padding { source: input, rows: padded(2), cols: padded(3), constant });
        verdict
    }

    fn layer_norm(&mut self) -> Verdict {
        let normalized = self.call.ints("normalized_shape").unwrap_or_default().len();
        let Some(input) = self.call.first() else { return self.guess() };
        let axes = &self.layout(input).axes;
        let over = &axes[axes.len().saturating_sub(normalized)..];
        let spatial = over.iter().any(|axis| axis.is_spatial());
        let verdict = self.pointwise();
        if spatial {
            return verdict.refused("its weights differ from position to position");
        }
        verdict
    }

    fn reduction(&mut self) -> Verdict {
        let reads = self.inputs();
        if reads.len() == 2 {
            return super::broadcast(&reads, self.size()).into();
        }
        let Some(input) = self.call.first() else { return self.guess() };
        let layout = self.layout(input).clone();
        let dims = self.call.ints("dim").filter(|dims| !dims.is_empty());
        let all = || (0..layout.axes.len()).collect::<Vec<_>>();
        let dims =
            dims.map_or_else(all, |dims| dims.iter().filter_map(|&dim| layout.axis(dim)).collect());
        let keeps = self.sizes.first().is_some_and(|size| size.len() == layout.axes.len());
        let mut axes = Vec::new();
        for (index, &axis) in layout.axes.iter().enumerate() {
            match (dims.contains(&index), keeps) {
                (true, true) => axes.push(Axis::Channels),
                (true, false) => {}
                (false, _) => axes.push(axis),
            }
        }
        if axes.len() != self.size().len() {
            return self.guess();
        }
        let reduced = |wanted: fn(&Axis) -> bool| {
            dims.iter().filter(|&&index| wanted(&layout.axes[index])).count()
        };
        let spatial = reduced(|axis| axis.is_spatial());
        let all_spatial = layout.axes.iter().filter(|axis| axis.is_spatial()).count();
        let verdict = Verdict::many(vec![Layout::new(axes, self.size()); self.sizes.len()]);
        if reduced(|axis| matches!(axis, Axis::Images(_))) > 0 {
            return verdict.refused("it reduces over the images of the batch");
        }
        if spatial != 0 && spatial != all_spatial {
            return verdict.refused("it reduces over one side of the grid");
        }
        verdict
    }

    fn attention(&mut self) -> Verdict {
        let layout = self.call.first().map(|query| self.layout(query).clone());
        match layout {
            Some(layout) if layout.size.len() == self.size().len() => {
                let size = self.size();
                let verdict = Verdict::new(Layout::new(layout.axes, size));
                verdict.refused("it is attention over positions")
            }
            _ => self.guess().refused("it is attention over positions"),
        }
    }

    fn product(&mut self) -> Verdict {
        let reads: Vec<Layout> = self.inputs().into_iter().cloned().collect();
        let size = self.size().to_vec();
        if let ([left, right], "matmul" | "bmm" | "mm") = (&reads[..], self.call.operator.as_str())
            && size.len() == left.axes.len()
            && left.axes.len() >= 2
        {
            let rank = left.axes.len();
            let mut axes = left.axes.clone();
            let contracted = axes[rank - 1];
            axes[rank - 1] = *right.axes.last().unwrap_or(&Axis::Channels);
            let verdict = Verdict::new(Layout::new(axes, &size));
            let mixes = contracted.is_spatial()
                || right.axes.iter().any(|axis| axis.is_spatial())
                    && left.axes.iter().any(|axis| axis.is_spatial());
            let verdict = if mixes {
                verdict.refused("it multiplies positions with positions: attention")
            } else {
                verdict
            };
            return verdict;
        }
        self.guess().refused("it multiplies matrices whose axes are not known to be channels")
    }

    fn linear(&mut self) -> Verdict {
        let input = if self.call.operator == "addmm" { "mat1" } else { "input" };
        let Some(layout) = self.call.value(input).map(|id| self.layout(id).clone()) else {
            return self.guess();
        };
        let spatial = layout.axes.last().is_some_and(|axis| axis.is_spatial());
        let mut axes = layout.axes;
        if let Some(last) = axes.last_mut() {
            *last = Axis::Channels;
        }
        if axes.len() != self.size().len() {
            return self.guess();
        }
        let verdict = Verdict::new(Layout::new(axes, self.size()));
        if spatial {
            return verdict.refused("it is a linear layer over positions");
        }
        verdict
    }

    /// Operators along one axis or several, which must not be positions.
    fn along_axes(&mut self) -> Verdict {
        let Some(input) = self.call.first() else { return self.guess() };
        let layout = self.layout(input).clone();
        let dims = self.call.ints("dim").or_else(|| self.call.ints("dims")).unwrap_or(vec![-1]);
        let over = dims.iter().filter_map(|&dim| layout.axis(dim)).map(|index| layout.axes[index]);
        let axis = over.into_iter().find(|axis| *axis != Axis::Channels);
        let verdict = if layout.size == self.size() { self.pointwise() } else { self.guess() };
        verdict.refused_if(axis.map(|axis| format!("it works along the {}", axis.name())))
    }

    /// Of vectors of images, which have no positions.
    fn over_vectors(&mut self, what: &str) -> Verdict {
        let Some(input) = self.call.first() else { return self.guess() };
        let layout = self.layout(input).clone();
        if layout.is_spatial() {
            return self.guess().refused(format!("it is {what} of the grid"));
        }
        let mut axes = vec![Axis::Channels; self.size().len()];
        if let (Some(first), Some(&axis)) = (axes.first_mut(), layout.axes.first()) {
            *first = axis;
        }
        Verdict::new(Layout::new(axes, self.size()))
    }
}

/// What the axes of a value are, in words.
fn names(layout: &Layout) -> String {
    let names: Vec<&str> = layout.axes.iter().map(|axis| axis.name()).collect();
    format!("a value of {}", names.join(" × "))
}
