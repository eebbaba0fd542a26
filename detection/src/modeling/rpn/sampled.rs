//! The head at the sampled anchors alone: what the losses are computed from.
//!
//! A step learns from a few hundred of the 10⁵ anchors. Backpropagation through
//! the head on whole maps would multiply zeros almost everywhere; at the
//! sampled positions it costs next to nothing, and gives the same gradients.

use std::collections::HashMap;

use backbone::Mode;
use tch::Tensor;

use super::head::RpnHead;
use crate::modeling::layers::in_full;

/// Height and width of the head's first kernel.
const KERNEL: i64 = 3;

/// An anchor of a batch: the image's number, and the anchor's among the
/// image's, level after level.
pub(super) type Anchor = (i64, i64);

impl RpnHead {
    /// Logits `[S]` and deltas `[S, 4]` of the `sampled` anchors of `maps`, each
    /// `[N, C, H, W]`, finest first.
    pub(super) fn at(&self, maps: &[Tensor], sampled: &[Anchor], mode: &Mode) -> (Tensor, Tensor) {
        let channels = maps[0].size()[1];
        let device = maps[0].device();
        let mut rows: Vec<Tensor> =
            maps.iter().map(|map| map.permute([0, 2, 3, 1]).reshape([-1, channels])).collect();
        rows.push(Tensor::zeros([1, channels], (maps[0].kind(), device)));
        let rows = Tensor::cat(&rows, 0);
        let (table, picked) = self.places(maps, sampled);
        let (table, picked) = (table.to_device(device), picked.to_device(device));

        let layer = |x: &Tensor, (weight, bias): &(Tensor, Tensor)| {
            // Kernels' positions outside, as in the table.
            let weight = mode.cast(weight).permute([0, 2, 3, 1]).flatten(1, 3);
            mode.cast(x).linear(&weight, Some(&mode.cast(bias)))
        };
        let [conv, objectness, deltas] = self.parameters();
        let patches = Tensor::embedding(&rows, &table, -1, false, false).flatten(1, 2);
        let hidden = layer(&patches, conv).relu();
        let logits = in_full(layer(&hidden, objectness)).reshape([-1]);
        let deltas = in_full(layer(&hidden, deltas)).view([-1, 4]);
        (logits.index_select(0, &picked), deltas.index_select(0, &picked))
    }

    /// The kernel's inputs of every position that has a sampled anchor,
    /// `[P, 9]`, as rows of all maps' positions (the last row lies outside), and
    /// of every sampled anchor the place among these positions' anchors.
    fn places(&self, maps: &[Tensor], sampled: &[Anchor]) -> (Tensor, Tensor) {
        let sizes: Vec<(i64, i64)> =
            maps.iter().map(|map| (map.size()[2], map.size()[3])).collect();
        let images = maps[0].size()[0];
        let outside = images * sizes.iter().map(|(height, width)| height * width).sum::<i64>();
        let mut positions: HashMap<i64, i64> = HashMap::new();
        let (mut table, mut picked) = (Vec::new(), Vec::new());
        for &(image, anchor) in sampled {
            let mut position = anchor / self.anchors();
            let mut before = 0;
            let mut levels = sizes.iter();
            let (height, width) = loop {
                let &(height, width) = levels.next().expect("the anchor is one of the maps'");
                if position < height * width {
                    break (height, width);
                }
                position -= height * width;
                before += images * height * width;
            };
            let first = before + image * height * width;
            let next = positions.len() as i64;
            let place = *positions.entry(first + position).or_insert(next);
            if place == next {
                let (y, x) = (position / width, position % width);
                for (y, x) in (0..KERNEL * KERNEL).map(|k| (y + k / KERNEL - 1, x + k % KERNEL - 1))
                {
                    let inside = (0..height).contains(&y) && (0..width).contains(&x);
                    table.push(if inside { first + y * width + x } else { outside });
                }
            }
            picked.push(place * self.anchors() + anchor % self.anchors());
        }
        let table = Tensor::from_slice(&table).view([-1, KERNEL * KERNEL]);
        (table, Tensor::from_slice(&picked))
    }
}

#[cfg(test)]
mod tests {
    use tch::nn::VarStore;
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn equals_the_head_on_whole_maps_and_so_do_its_gradients() {
        tch::manual_seed(0);
        let mut store = VarStore::new(Device::Cpu);
        let head = RpnHead::new(&store.root(), 6, 3);
        store.double();
        let sizes = [(5, 7), (3, 4), (1, 2)];
        let maps = sizes.map(|(height, width)| {
            Tensor::randn([2, 6, height, width], (Kind::Double, Device::Cpu))
                .set_requires_grad(true)
        });
        // Corners, edges, the middle, all levels; some positions twice.
        let sampled = [
            (0, 0),
            (0, 1),
            (1, 20),
            (1, 104),
            (0, 105),
            (1, 125),
            (0, 140),
            (1, 141),
            (1, 146),
            (1, 20),
        ];
        let whole: Vec<(Tensor, Tensor)> =
            maps.iter().map(|map| head.forward(map, &Mode::train())).collect();
        let logits = Tensor::cat(&whole.iter().map(|level| &level.0).collect::<Vec<_>>(), 1);
        let deltas = Tensor::cat(&whole.iter().map(|level| &level.1).collect::<Vec<_>>(), 1);
        let pick = |of: &Tensor| {
            let rows: Vec<Tensor> =
                sampled.iter().map(|&(image, anchor)| of.get(image).get(anchor)).collect();
            Tensor::stack(&rows, 0)
        };
        let (logits, deltas) = (pick(&logits), pick(&deltas));
        let (ours, our_deltas) = head.at(&maps, &sampled, &Mode::train());

        let close = |a: &Tensor, b: &Tensor| {
            // Float64 sums of 54 products in another order.
            assert!((a - b).abs().max().double_value(&[]) < 1e-13);
        };
        close(&ours, &logits);
        close(&our_deltas, &deltas);
        let mut leaves: Vec<Tensor> = store.variables().into_values().collect();
        leaves.extend(maps.iter().map(Tensor::shallow_clone));
        let gradients = |logits: Tensor, deltas: Tensor| {
            let loss = logits.square().sum(Kind::Double) + deltas.sin().sum(Kind::Double);
            Tensor::run_backward(&[loss], &leaves, false, false)
        };
        for (a, b) in gradients(ours, our_deltas).iter().zip(gradients(logits, deltas)) {
            close(a, &b);
        }
    }
}
