//! A report on a data set itself: what it holds, and what is wrong with it.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use hotcoco::{Annotation, COCO, Dataset};
use serde::Serialize;

use super::coco;
use super::findings::{self, Finding, Severity};
use crate::Result;

/// Areas below the first are small, below the second medium, in pixels (COCO).
const AREAS: [f64; 2] = [32.0 * 32.0, 96.0 * 96.0];
/// Bounds of the classes of width over height.
const RATIOS: [f64; 5] = [0.25, 0.5, 1.0, 2.0, 4.0];
/// Cases listed of each kind of finding.
const LISTED: usize = 5;
/// hotcoco's checks that find what [`findings`] doesn't look for.
const FURTHER: [&str; 6] = [
    "zero_area",
    "extreme_aspect_ratio",
    "near_duplicate",
    "near_duplicate_check_skipped",
    "zero_instance_category",
    "low_instance_category",
];

/// How thoroughly to look.
#[derive(Debug, Clone)]
pub struct CheckOptions {
    /// Decode every image: finds broken files and sizes that differ from the record's.
    pub read_images: bool,
    /// Threads that decode.
    pub threads: usize,
}

/// What a data set holds.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The annotation file.
    pub annotations: PathBuf,
    /// The folder of the images.
    pub folder: PathBuf,
    /// Image records.
    pub images: usize,
    /// Annotations, crowds included.
    pub objects: usize,
    /// Objects that can be trained on: no crowd, with a usable box and mask.
    pub trainable: usize,
    /// Crowds: regions of many objects.
    pub crowds: usize,
    /// Images without any annotation.
    pub empty_images: usize,
    /// Image files that are not there.
    pub missing_files: usize,
    /// Every class, by number.
    pub classes: Vec<ClassRow>,
    /// Objects below 32² pixels.
    pub small: usize,
    /// Objects from 32² to 96² pixels.
    pub medium: usize,
    /// Objects of 96² pixels or more.
    pub large: usize,
    /// Boxes by width over height: below ¼, ½, 1, 2, 4, and the others.
    pub aspect_ratios: [usize; 6],
    /// How masks are given: by polygons, by run lengths, not at all.
    pub masks: [usize; 3],
    /// Objects in an image, over all images; crowds left out.
    pub objects_per_image: Distribution,
    /// Widths of the images, in pixels.
    pub widths: Distribution,
    /// Heights of the images, in pixels.
    pub heights: Distribution,
    /// What is wrong, errors first.
    pub findings: Vec<Finding>,
}

/// What a data set holds of a class.
#[derive(Debug, Clone, Serialize)]
pub struct ClassRow {
    /// The category id.
    pub id: u64,
    /// The category's name.
    pub name: String,
    /// Objects, crowds left out.
    pub objects: usize,
    /// Images with at least one annotation of it.
    pub images: usize,
    /// Crowds.
    pub crowds: usize,
    /// Objects below 32² pixels.
    pub small: usize,
    /// Objects from 32² to 96² pixels.
    pub medium: usize,
    /// Objects of 96² pixels or more.
    pub large: usize,
}

/// Of many numbers; all 0 of none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Distribution {
    pub min: f64,
    pub median: f64,
    pub mean: f64,
    pub max: f64,
}

/// Looks through the data set that [`CocoDataset::open`](super::CocoDataset::open) would open;
/// what that refuses is a finding here.
///
/// # Errors
/// [`Error::Format`](crate::Error::Format) or [`Error::Engine`](crate::Error::Engine) when the
/// file can't be parsed or read.
pub fn check(annotations: &Path, images: Option<&Path>, options: &CheckOptions) -> Result<Report> {
    let coco = coco::read(annotations)?;
    let folder = coco::image_folder(annotations, images, &coco)?;
    let inspection = findings::inspect(&coco.dataset);
    let missing = coco::missing(&folder, &coco);

    let mut found = inspection.findings;
    found.extend(further(&coco));
    found.extend(missing_files(&coco.dataset, &missing));
    if options.read_images {
        found.extend(unreadable(&coco.dataset, &folder, &missing, options.threads));
    }
    found.sort_by_key(|finding| finding.severity);

    let dataset = &coco.dataset;
    let per_image = objects_per_image(dataset);
    let sizes: Vec<usize> = objects(dataset).map(size_class).collect();
    let of_size = |class| sizes.iter().filter(|&&size| size == class).count();
    let stats = coco.stats();
    Ok(Report {
        annotations: annotations.to_owned(),
        folder,
        images: stats.image_count,
        objects: stats.annotation_count,
        trainable: inspection.objects.iter().map(Vec::len).sum(),
        crowds: stats.crowd_count,
        empty_images: images_without(&coco),
        missing_files: missing.len(),
        classes: classes(dataset, &stats),
        small: of_size(0),
        medium: of_size(1),
        large: of_size(2),
        aspect_ratios: aspect_ratios(dataset),
        masks: mask_kinds(dataset),
        objects_per_image: Distribution::of(&per_image),
        widths: distribution(&stats.image_width),
        heights: distribution(&stats.image_height),
        findings: found,
    })
}

impl Report {
    /// Whether the data set can be used: there are no errors among the findings.
    pub fn is_usable(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity == Severity::Warning)
    }
}

impl Distribution {
    fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (sorted.first(), sorted.last()) else {
            return Self::default();
        };
        let middle = |place: usize| sorted[place.min(sorted.len() - 1)];
        let median = (middle((sorted.len() - 1) / 2) + middle(sorted.len() / 2)) / 2.0;
        let mean = sorted.iter().sum::<f64>() / sorted.len() as f64;
        Self { min, median, mean, max }
    }
}

fn distribution(stats: &hotcoco::SummaryStats) -> Distribution {
    Distribution { min: stats.min, median: stats.median, mean: stats.mean, max: stats.max }
}

fn objects(dataset: &Dataset) -> impl Iterator<Item = &Annotation> {
    dataset.annotations.iter().filter(|annotation| !annotation.iscrowd)
}

/// 0 small, 1 medium, 2 large: by the area in the file, or the box's where there is none.
fn size_class(annotation: &Annotation) -> usize {
    let of_box = || annotation.bbox.map(|[_, _, width, height]| width * height);
    let area = annotation.area.or_else(of_box).unwrap_or_default();
    AREAS.iter().filter(|&&bound| area >= bound).count()
}

fn classes(dataset: &Dataset, stats: &hotcoco::DatasetStats) -> Vec<ClassRow> {
    let mut sizes: BTreeMap<u64, [usize; 3]> = BTreeMap::new();
    for annotation in objects(dataset) {
        sizes.entry(annotation.category_id).or_default()[size_class(annotation)] += 1;
    }
    let row = |class: &hotcoco::CategoryStats| {
        let [small, medium, large] = sizes.get(&class.id).copied().unwrap_or_default();
        ClassRow {
            id: class.id,
            name: class.name.clone(),
            objects: class.ann_count - class.crowd_count,
            images: class.img_count,
            crowds: class.crowd_count,
            small,
            medium,
            large,
        }
    };
    let mut rows: Vec<ClassRow> = stats.per_category.iter().map(row).collect();
    rows.sort_by_key(|row| row.id);
    rows
}

fn aspect_ratios(dataset: &Dataset) -> [usize; 6] {
    let mut counts = [0; 6];
    for [_, _, width, height] in objects(dataset).filter_map(|annotation| annotation.bbox) {
        if width > 0.0 && height > 0.0 {
            counts[RATIOS.iter().filter(|&&bound| width / height >= bound).count()] += 1;
        }
    }
    counts
}

fn mask_kinds(dataset: &Dataset) -> [usize; 3] {
    let mut counts = [0; 3];
    for annotation in objects(dataset) {
        let kind = match &annotation.segmentation {
            Some(mask) if mask.rle_ref().is_none() => 0,
            Some(_) => 1,
            None => 2,
        };
        counts[kind] += 1;
    }
    counts
}

fn objects_per_image(dataset: &Dataset) -> Vec<f64> {
    let mut counts: BTreeMap<u64, f64> =
        dataset.images.iter().map(|image| (image.id, 0.0)).collect();
    for annotation in objects(dataset) {
        if let Some(count) = counts.get_mut(&annotation.image_id) {
            *count += 1.0;
        }
    }
    counts.into_values().collect()
}

fn images_without(coco: &COCO) -> usize {
    let images = coco.dataset.images.iter();
    images.filter(|image| coco.get_ann_ids_for_img(image.id).is_empty()).count()
}

/// What hotcoco's checks find besides.
fn further(coco: &COCO) -> Vec<Finding> {
    let found = coco.healthcheck().warnings.into_iter();
    found
        .filter(|finding| FURTHER.contains(&finding.code))
        .map(|finding| {
            let count = finding.affected_ids.len();
            // Its messages begin with the number.
            let problem =
                finding.message.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
            Finding {
                severity: Severity::Warning,
                code: finding.code.to_owned(),
                problem: problem.trim_end_matches('.').to_owned(),
                count,
                examples: finding.affected_ids.iter().take(LISTED).map(u64::to_string).collect(),
            }
        })
        .collect()
}

fn missing_files(dataset: &Dataset, missing: &[usize]) -> Option<Finding> {
    let name = |&place: &usize| dataset.images[place].file_name.clone();
    let all = missing.len() == dataset.images.len();
    (!missing.is_empty()).then(|| Finding {
        severity: if all { Severity::Error } else { Severity::Warning },
        code: "missing_file".into(),
        problem: "image files are missing".into(),
        count: missing.len(),
        examples: missing.iter().take(LISTED).map(name).collect(),
    })
}

/// Decodes all images that are there.
fn unreadable(
    dataset: &Dataset,
    folder: &Path,
    missing: &[usize],
    threads: usize,
) -> Option<Finding> {
    let (next, problems) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(image) = dataset.images.get(place) else { break };
                    if missing.binary_search(&place).is_err()
                        && let Err(problem) = coco::decode(folder, image)
                        && let Ok(mut problems) = problems.lock()
                    {
                        problems.insert(place, problem.to_string());
                    }
                }
            });
        }
    });
    let problems = problems.into_inner().unwrap_or_default();
    (!problems.is_empty()).then(|| Finding {
        severity: Severity::Warning,
        code: "unreadable_file".into(),
        problem: "image files can't be used".into(),
        count: problems.len(),
        examples: problems.into_values().take(LISTED).collect(),
    })
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} with images in {}", self.annotations.display(), self.folder.display())?;
        let (images, objects) = (self.images, self.objects);
        let (empty, missing) = (self.empty_images, self.missing_files);
        writeln!(f, "{images} images ({empty} without annotations, {missing} files missing)")?;
        let (trainable, crowds) = (self.trainable, self.crowds);
        writeln!(f, "{objects} annotations: {trainable} objects to train on, {crowds} crowds")?;
        let [polygons, runs, none] = self.masks;
        writeln!(f, "masks: {polygons} polygons, {runs} run lengths, {none} none")?;
        for (name, d) in [
            ("widths", &self.widths),
            ("heights", &self.heights),
            ("objects an image", &self.objects_per_image),
        ] {
            let Distribution { min, median, mean, max } = d;
            writeln!(f, "{name}: {min} to {max}, median {median}, mean {mean:.1}")?;
        }
        let ratios: Vec<String> = self.aspect_ratios.iter().map(usize::to_string).collect();
        writeln!(f, "box width / height below ¼, ½, 1, 2, 4, more: {}", ratios.join(", "))?;

        let width = self.classes.iter().map(|c| c.name.chars().count()).max().unwrap_or(0).max(5);
        let heads = ["objects", "images", "crowds", "small", "medium", "large"];
        write!(f, "\n{:>6} {:<width$}", "id", "class")?;
        heads.iter().try_for_each(|head| write!(f, " {head:>8}"))?;
        for class in &self.classes {
            write!(f, "\n{:>6} {:<width$}", class.id, class.name)?;
            let ClassRow { objects, images, crowds, small, medium, large, .. } = class;
            for number in [objects, images, crowds, small, medium, large] {
                write!(f, " {number:>8}")?;
            }
        }
        write!(f, "\n{:>6} {:<width$} {:>8} {:>8}", "", "all", objects - crowds, images)?;
        for number in [crowds, self.small, self.medium, self.large] {
            write!(f, " {number:>8}")?;
        }
        writeln!(f)?;
        if self.findings.is_empty() {
            return writeln!(f, "\nnothing wrong was found");
        }
        writeln!(f)?;
        for finding in &self.findings {
            let kind = match finding.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            writeln!(f, "{kind}: {finding}")?;
        }
        Ok(())
    }
}
