//! What the axes of a value are: images, channels, or positions of the grid.

use crate::Size;

/// The number of an [`Extent`].
pub(super) type ExtentId = usize;

/// What one axis of a value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Axis {
    /// Channels, or anything else of a fixed size.
    Channels,
    /// So many for every image of the batch.
    Images(i64),
    /// Rows of a grid of positions.
    Height(ExtentId),
    /// Columns of a grid of positions.
    Width(ExtentId),
    /// Rows and columns in one.
    Positions(ExtentId),
}

impl Axis {
    /// Whether it counts positions.
    pub fn is_spatial(self) -> bool {
        matches!(self, Self::Height(_) | Self::Width(_) | Self::Positions(_))
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Channels => "channels",
            Self::Images(_) => "images",
            Self::Height(_) => "height",
            Self::Width(_) => "width",
            Self::Positions(_) => "positions",
        }
    }
}

/// A grid of positions that values have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// Height and width at export.
    pub size: Size,
    /// Pixels of the image per position along each side, where every patch has positions of its
    /// own; `None`: the grid is not the image's divided by a stride.
    pub stride: Option<Size>,
}

/// The grids of a graph.
#[derive(Debug, Clone, Default)]
pub(super) struct Extents(Vec<Extent>);

impl Extents {
    /// The number of such a grid.
    pub fn id(&mut self, extent: Extent) -> ExtentId {
        let found = self.0.iter().position(|known| *known == extent);
        found.unwrap_or_else(|| {
            self.0.push(extent);
            self.0.len() - 1
        })
    }

    /// A grid with so many rows (or columns) that a constant may be spread over.
    pub fn with_side(&self, side: i64, is_height: bool) -> Option<ExtentId> {
        let sides = |extent: &Extent| if is_height { extent.size.0 } else { extent.size.1 };
        self.0.iter().position(|extent| sides(extent) == side && extent.stride.is_some())
    }

    /// A grid of this size.
    pub fn with_size(&self, size: Size) -> Option<ExtentId> {
        let aligned = self.0.iter().position(|e| e.size == size && e.stride.is_some());
        aligned.or_else(|| self.0.iter().position(|extent| extent.size == size))
    }

    pub fn get(&self, id: ExtentId) -> Extent {
        self.0[id]
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// The axes of a value and their sizes at export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub axes: Vec<Axis>,
    pub size: Vec<i64>,
}

impl Layout {
    /// A value of fixed size.
    pub fn fixed(size: &[i64]) -> Self {
        Self { axes: vec![Axis::Channels; size.len()], size: size.to_owned() }
    }

    /// A map `[N, C, H, W]`.
    pub fn map(size: &[i64], extent: ExtentId) -> Self {
        let axes = vec![Axis::Images(1), Axis::Channels, Axis::Height(extent), Axis::Width(extent)];
        Self { axes, size: size.to_owned() }
    }

    pub fn new(axes: Vec<Axis>, size: &[i64]) -> Self {
        debug_assert_eq!(axes.len(), size.len());
        Self { axes, size: size.to_owned() }
    }

    /// Whether any axis counts positions.
    pub fn is_spatial(&self) -> bool {
        self.axes.iter().any(|axis| axis.is_spatial())
    }

    /// Whether it has a part for every image.
    pub fn is_of_images(&self) -> bool {
        self.axes.iter().any(|axis| matches!(axis, Axis::Images(_)))
    }

    /// The grid of a map `[N, C, H, W]`.
    pub fn map_extent(&self) -> Option<ExtentId> {
        match self.axes[..] {
            [Axis::Images(1), Axis::Channels, Axis::Height(extent), Axis::Width(same)]
                if extent == same =>
            {
                Some(extent)
            }
            _ => None,
        }
    }

    /// The grid of a map `[N, H, W, C]`.
    pub fn channels_last_extent(&self) -> Option<ExtentId> {
        match self.axes[..] {
            [Axis::Images(1), Axis::Height(extent), Axis::Width(same), Axis::Channels]
                if extent == same =>
            {
                Some(extent)
            }
            _ => None,
        }
    }

    /// An axis counted from the end if negative.
    pub fn axis(&self, index: i64) -> Option<usize> {
        let rank = self.axes.len() as i64;
        let index = if index < 0 { index + rank } else { index };
        (0..rank).contains(&index).then_some(index as usize)
    }

    /// The axes that `f` leaves in another order.
    pub fn reordered(&self, order: &[usize]) -> Self {
        Self {
            axes: order.iter().map(|&index| self.axes[index]).collect(),
            size: order.iter().map(|&index| self.size[index]).collect(),
        }
    }
}

/// A layout, and why it has no meaning on visible patches if it has none.
pub(super) type Labelled = (Layout, Option<String>);

/// The layout of values broadcast to `size`.
pub(super) fn broadcast(layouts: &[&Layout], size: &[i64]) -> Labelled {
    let mut axes = vec![Axis::Channels; size.len()];
    let mut refusal = None;
    let place = |layout: &Layout, index: usize| {
        (size.len() + index)
            .checked_sub(layout.axes.len())
            .filter(|_| layout.axes.len() <= size.len())
    };
    for layout in layouts {
        for (index, &axis) in layout.axes.iter().enumerate() {
            let Some(at) = place(layout, index) else { continue };
            if axis == Axis::Channels || layout.size[index] != size[at] {
                continue;
            }
            let (old, new) = (axes[at], axis);
            match (old, new) {
                (Axis::Channels, _) => axes[at] = new,
                _ if std::mem::discriminant(&old) == std::mem::discriminant(&new) => {}
                _ => {
                    refusal.get_or_insert_with(|| {
                        format!("it sets {} against {}", old.name(), new.name())
                    });
                }
            }
        }
    }
    for layout in layouts {
        for (index, &axis) in layout.axes.iter().enumerate() {
            let Some(at) = place(layout, index) else { continue };
            if axis == Axis::Channels && axes[at].is_spatial() && layout.size[index] > 1 {
                refusal.get_or_insert_with(|| {
                    format!(
                        "a parameter or constant of shape {:?} has a value for every position",
                        layout.size
                    )
                });
            }
        }
    }
    let result = Layout::new(axes, size);
    let sides = result.axes.iter().filter(|axis| axis.is_spatial()).count();
    let has_whole = result.axes.iter().any(|axis| matches!(axis, Axis::Positions(_)));
    if sides == 1 && !has_whole {
        refusal.get_or_insert_with(|| "it is a strip along one side of the grid".into());
    }
    (result, refusal)
}

/// The layout of `from` viewed as `size`.
pub(super) fn reshape(from: &Layout, size: &[i64], extents: &mut Extents) -> Labelled {
    let mut axes = Vec::with_capacity(size.len());
    let mut refusal = None;
    let (mut i, mut j) = (0, 0);
    while i < from.size.len() || j < size.len() {
        let start = (i, j);
        let take = |values: &[i64], at: &mut usize| {
            let value = values.get(*at).copied();
            *at += usize::from(value.is_some());
            value
        };
        let (mut p, mut q) =
            (take(&from.size, &mut i).unwrap_or(1), take(size, &mut j).unwrap_or(1));
        while p != q {
            let next = if p < q { take(&from.size, &mut i) } else { take(size, &mut j) };
            let Some(next) = next.filter(|next| *next > 0) else {
                // libtorch says so when it runs.
                return (Layout::fixed(size), Some("its shapes do not agree".into()));
            };
            if p < q { p *= next } else { q *= next }
        }
        let group: Vec<usize> = (start.0..i).collect();
        let (labels, problem) = regroup(from, &group, &size[start.1..j], extents);
        axes.extend(labels);
        refusal = refusal.or(problem);
    }
    (settled(Layout::new(axes, size), extents), refusal)
}

/// `layout` with the grid that its sides have where an operator left other sizes than those of the
/// grid it began with: blocks of positions became channels.
pub(super) fn settled(mut layout: Layout, extents: &mut Extents) -> Layout {
    let side = |layout: &Layout, is_height: bool| {
        layout.axes.iter().position(|axis| match axis {
            Axis::Height(_) => is_height,
            Axis::Width(_) => !is_height,
            _ => false,
        })
    };
    let (Some(y), Some(x)) = (side(&layout, true), side(&layout, false)) else { return layout };
    let (Axis::Height(extent), size) = (layout.axes[y], (layout.size[y], layout.size[x])) else {
        return layout;
    };
    let old = extents.get(extent);
    if old.size == size {
        return layout;
    }
    let divided = |old: i64, new: i64| (new > 0 && old % new == 0).then(|| old / new);
    let stride = old.stride.and_then(|stride| {
        let (down, across) = (divided(old.size.0, size.0)?, divided(old.size.1, size.1)?);
        Some((stride.0 * down, stride.1 * across))
    });
    let extent = extents.id(Extent { size, stride });
    layout.axes[y] = Axis::Height(extent);
    layout.axes[x] = Axis::Width(extent);
    layout
}

/// The labels of the axes that a group of axes of `from` becomes.
fn regroup(
    from: &Layout,
    group: &[usize],
    into: &[i64],
    extents: &Extents,
) -> (Vec<Axis>, Option<String>) {
    let mut axes = vec![Axis::Channels; into.len()];
    let labelled: Vec<usize> =
        group.iter().copied().filter(|&index| from.axes[index] != Axis::Channels).collect();
    // The axes of the group that count: of a group of ones the labelled.
    let large: Vec<usize> = group
        .iter()
        .copied()
        .filter(|&index| from.size[index] != 1 || from.axes[index] != Axis::Channels)
        .collect();
    let Some(&first) = labelled.first() else { return (axes, None) };
    let mut targets: Vec<usize> = (0..into.len()).filter(|&index| into[index] != 1).collect();
    if targets.is_empty() {
        targets.extend((!into.is_empty()).then_some(0));
    }
    let only_labelled = large.iter().all(|index| labelled.contains(index));
    let mixed = || {
        let names = group.iter().map(|&index| from.axes[index].name()).collect::<Vec<_>>();
        let sizes = group.iter().map(|&index| from.size[index]).collect::<Vec<_>>();
        Some(format!("it views {} {sizes:?} as {into:?}", names.join(" × ")))
    };
    match (labelled.len(), from.axes[first]) {
        (1, axis) if only_labelled && targets.len() == 1 => {
            axes[targets[0]] = axis;
            (axes, None)
        }
        (1, axis) if only_labelled && targets.is_empty() => {
            // Squeezed away: only an axis of one is.
            let problem = axis.is_spatial().then(mixed).flatten();
            (axes, problem)
        }
        (1, Axis::Positions(extent)) if only_labelled && targets.len() == 2 => {
            let size = extents.get(extent).size;
            let split = (into[targets[0]], into[targets[1]]);
            axes[targets[0]] = Axis::Height(extent);
            axes[targets[1]] = Axis::Width(extent);
            (axes, if split == size { None } else { mixed() })
        }
        (1, axis @ (Axis::Height(extent) | Axis::Width(extent)))
            if only_labelled && targets.len() == 2 =>
        {
            // Space to depth: blocks of positions become channels; see settled().
            axes[targets[0]] = axis;
            (axes, if extents.get(extent).stride.is_none() { mixed() } else { None })
        }
        (1, Axis::Images(multiple)) => {
            // Images and channels in any grouping: no position is touched.
            let images = from.size[first] / multiple.max(1);
            match targets.first() {
                Some(&at) if images > 0 && into[at] % images == 0 && first == group[0] => {
                    axes[at] = Axis::Images(into[at] / images);
                    (axes, None)
                }
                _ => (axes, mixed()),
            }
        }
        (2, Axis::Height(extent))
            if only_labelled
                && from.axes[labelled[1]] == Axis::Width(extent)
                && targets.len() <= 1 =>
        {
            if let Some(&at) = targets.first() {
                axes[at] = Axis::Positions(extent);
            }
            (axes, None)
        }
        (2, Axis::Height(extent))
            if only_labelled
                && from.axes[labelled[1]] == Axis::Width(extent)
                && into.len() == 2 =>
        {
            (vec![Axis::Height(extent), Axis::Width(extent)], None)
        }
        _ => (axes, mixed()),
    }
}
