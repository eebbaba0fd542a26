//! What a picture with many objects shows, in words beneath it.

use engine::picture::Canvas;
use engine::picture::canvas::INK;
use image::RgbImage;

use super::labels::Style;
use super::objects::Object;
use super::palette::class_color;

/// The legend takes at most this part of the image's height, one line at least.
const SHARE: u32 = 3;

/// A class, how often it is there, and whether its colour says so.
struct Entry {
    class: usize,
    name: String,
    count: usize,
}

/// `picture` with the classes of `objects` and their numbers beneath it, the most frequent first;
/// with their colours where there are several.
pub(super) fn with_legend(picture: &RgbImage, objects: &[Object], style: Style) -> RgbImage {
    let entries = entries(objects);
    let colored = entries.len() > 1;
    let (width, line) = (picture.width() as i32, style.size("").1);
    let swatch = if colored { line } else { 0 };
    let most = (picture.height() as i32 / SHARE as i32 / line).max(1);

    // Left to right, then the next line.
    let mut placed = Vec::new();
    let (mut x, mut row) = (0, 0);
    for (at, entry) in entries.iter().enumerate() {
        let text = fitted(&entry.name, &format!(" × {}", entry.count), width - swatch, style);
        let needed = swatch + style.size(&text).0;
        if x > 0 && x + needed > width {
            (x, row) = (0, row + 1);
        }
        if row + 1 == most && at + 1 < entries.len() {
            // The last line also says what there is no room for.
            let rest = more(entries.len() - at);
            let next = more(entries.len() - at - 1);
            if x + needed + line + style.size(&next).0 > width {
                placed.push((x, row, rest, None));
                break;
            }
        }
        placed.push((x, row, text, colored.then(|| class_color(entry.class))));
        x += needed + line;
    }

    let rows = placed.last().map_or(0, |(_, row, ..)| row + 1);
    let mut canvas = Canvas::new(picture.width(), picture.height() + (rows * line) as u32);
    canvas.paste(picture, (0, 0), 1);
    for (x, row, text, color) in placed {
        let y = picture.height() as i32 + row * line;
        let mut left = x;
        if let Some(color) = color {
            let side = (line * 3 / 5) as u32;
            let margin = (line - side as i32) / 2;
            canvas.fill((x + margin, y + margin), (side, side), color);
            left += swatch;
        }
        style.write(&mut canvas, &text, (left, y), INK);
    }
    canvas.into_image()
}

fn more(classes: usize) -> String {
    format!("+ {classes} more")
}

/// The classes of `objects` with their numbers, the most frequent first.
fn entries(objects: &[Object]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for object in objects {
        match entries.iter_mut().find(|entry| entry.class == object.class) {
            Some(entry) => entry.count += 1,
            None => {
                let (class, name) = (object.class, object.name.clone());
                entries.push(Entry { class, name, count: 1 });
            }
        }
    }
    entries.sort_by(|a, b| b.count.cmp(&a.count).then(a.class.cmp(&b.class)));
    entries
}

/// The name cut short where it does not fit beside its number.
fn fitted(name: &str, number: &str, width: i32, style: Style) -> String {
    let mut letters: Vec<char> = name.chars().collect();
    loop {
        let text = String::from_iter(&letters) + number;
        if style.size(&text).0 <= width || letters.len() <= 1 {
            return text;
        }
        letters.pop();
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    fn objects(counts: &[usize]) -> Vec<Object> {
        let object = |class: usize| Object {
            class,
            bbox: [0.0; 4],
            mask: None,
            name: format!("class {class}"),
            detail: String::new(),
        };
        let classes = counts.iter().enumerate();
        classes.flat_map(|(class, &count)| vec![object(class); count]).collect()
    }

    #[test]
    fn the_image_stays_as_it_is_above_the_legend() {
        for (width, height, classes) in [(300, 200, 1), (300, 200, 4), (300, 200, 80), (40, 30, 3)]
        {
            let image = RgbImage::from_pixel(width, height, Rgb([7, 80, 9]));
            let style = Style::for_side(width);
            let counts: Vec<usize> = (0..classes).map(|class| class + 1).collect();
            let drawn = with_legend(&image, &objects(&counts), style);
            assert_eq!(drawn.width(), width);
            let added = drawn.height() - height;
            let line = style.size("").1 as u32;
            assert!(added >= line && added <= (height / 3).max(line), "{added}");
            assert!(drawn.rows().take(height as usize).flatten().all(|p| p.0 == [7, 80, 9]));
            assert!(drawn.rows().skip(height as usize).flatten().any(|p| p.0 == [40; 3]));
        }
    }

    #[test]
    fn the_most_frequent_class_stands_first() {
        let counted: Vec<_> =
            entries(&objects(&[2, 0, 5, 2])).into_iter().map(|e| (e.class, e.count)).collect();
        assert_eq!(counted, [(2, 5), (0, 2), (3, 2)]);
    }
}
