//! A report on a data set itself: what it holds, and what is wrong with it.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use hotcoco::{Annotation, COCO, Dataset};
use serde::Serialize;
use words::counted;

use super::annotations::{AnnotationFile, GroundTruth, Id};
use super::coco;
use super::findings::{self, Finding, Notes, Severity};
use crate::Result;

/// Areas below the first are small, below the second medium, in pixels (COCO).
const AREAS: [f64; 2] = [32.0 * 32.0, 96.0 * 96.0];
/// Bounds of the classes of width over height.
const RATIOS: [f64; 5] = [0.25, 0.5, 1.0, 2.0, 4.0];
/// Cases listed of each kind of finding.
const LISTED: usize = 5;

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
pub struct DataReport {
    /// The annotation file.
    pub annotations: PathBuf,
    /// The folder of the images.
    pub folder: PathBuf,
    /// Image records.
    pub images: usize,
    /// Annotations in the file, crowds and those left out included.
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
    pub id: Id,
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
pub fn check(
    annotations: &Path,
    images: Option<&Path>,
    options: &CheckOptions,
) -> Result<DataReport> {
    let mut file = AnnotationFile::read(annotations)?;
    findings::leave_out_images(&mut file);
    let AnnotationFile { truth: coco, notes, annotations: objects_in_file, .. } = file;
    let folder = coco::image_folder(annotations, images, &coco)?;
    let inspection = findings::inspect(&coco, true, notes);
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
    Ok(DataReport {
        annotations: annotations.to_owned(),
        folder,
        images: stats.image_count,
        objects: objects_in_file,
        trainable: inspection.objects.iter().map(Vec::len).sum(),
        crowds: stats.crowd_count,
        empty_images: images_without(&coco),
        missing_files: missing.len(),
        classes: classes(&coco, &stats),
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

impl DataReport {
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

fn classes(truth: &GroundTruth, stats: &hotcoco::DatasetStats) -> Vec<ClassRow> {
    let mut sizes: BTreeMap<u64, [usize; 3]> = BTreeMap::new();
    for annotation in objects(&truth.dataset) {
        sizes.entry(annotation.category_id).or_default()[size_class(annotation)] += 1;
    }
    let row = |class: &hotcoco::CategoryStats| {
        let [small, medium, large] = sizes.get(&class.id).copied().unwrap_or_default();
        ClassRow {
            id: truth.category_id(class.id),
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
    rows.sort_by(|a, b| a.id.cmp(&b.id));
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

/// What hotcoco's checks find that [`findings`] doesn't look for.
fn further(truth: &GroundTruth) -> Vec<Finding> {
    let mut notes = Notes::default();
    for finding in truth.healthcheck().warnings {
        let name: &dyn Fn(u64) -> String = match finding.code {
            "zero_area" | "extreme_aspect_ratio" | "near_duplicate" => &|id| truth.annotation(id),
            "near_duplicate_check_skipped" => &|id| format!("image {}", truth.image_id(id)),
            "zero_instance_category" | "low_instance_category" => &|id| match truth.get_cat(id) {
                Some(category) => format!("{:?}", category.name),
                None => format!("category {}", truth.category_id(id)),
            },
            _ => continue,
        };
        let mut ids = finding.affected_ids;
        ids.sort_unstable();
        ids.into_iter().for_each(|id| notes.add(finding.code, || name(id)));
    }
    notes.finish()
}

fn missing_files(dataset: &Dataset, missing: &[usize]) -> Option<Finding> {
    let name = |&place: &usize| dataset.images[place].file_name.clone();
    if missing.is_empty() {
        return None;
    }
    let examples = missing.iter().take(LISTED).map(name).collect();
    let mut finding = Finding::of("missing_file", missing.len(), examples)?;
    if missing.len() == dataset.images.len() {
        finding.severity = Severity::Error;
    }
    Some(finding)
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
    let count = problems.len();
    let examples = problems.into_values().take(LISTED).collect();
    if count == 0 { None } else { Finding::of("unreadable_file", count, examples) }
}

impl Display for DataReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} with images in {}", self.annotations.display(), self.folder.display())?;
        let (images, objects) =
            (counted(self.images, "image"), counted(self.objects, "annotation"));
        let (empty, missing) = (self.empty_images, counted(self.missing_files, "file"));
        writeln!(f, "{images} ({empty} without annotations, {missing} missing)")?;
        let (trainable, crowds) =
            (counted(self.trainable, "object"), counted(self.crowds, "crowd"));
        writeln!(f, "{objects}: {trainable} to train on, {crowds}")?;
        let [polygons, runs, none] = self.masks;
        writeln!(f, "masks: {polygons} polygons, {runs} run lengths, {none} none")?;
        if polygons + runs == 0 && none > 0 {
            writeln!(f, "`detect train --masks false` trains a detector of boxes on it")?;
        }
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
        let ids = self.classes.iter().map(|c| c.id.to_string().chars().count());
        let id_width = ids.max().unwrap_or(0).max(6);
        write!(f, "\n{:>id_width$} {:<width$}", "id", "class")?;
        heads.iter().try_for_each(|head| write!(f, " {head:>8}"))?;
        for class in &self.classes {
            write!(f, "\n{:>id_width$} {:<width$}", class.id.to_string(), class.name)?;
            let ClassRow { objects, images, crowds, small, medium, large, .. } = class;
            for number in [objects, images, crowds, small, medium, large] {
                write!(f, " {number:>8}")?;
            }
        }
        let all: usize = self.classes.iter().map(|class| class.objects).sum();
        write!(f, "\n{:>id_width$} {:<width$}", "", "all")?;
        for number in [all, self.images, self.crowds, self.small, self.medium, self.large] {
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
