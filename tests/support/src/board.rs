//! What TensorBoard shows of a run, decoded here from the bytes of its event files.

use std::path::Path;

use super::program::read;

/// A number that TensorBoard shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    pub tag: String,
    pub step: u64,
    pub value: f32,
}

/// The numbers that TensorBoard shows of a run, oldest first: a file that begins with a restart
/// makes void what earlier files have from its step on.
pub fn shown_on_board(run: &Path) -> Vec<Shown> {
    let entries = std::fs::read_dir(run.join("tensorboard")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort_by_key(|path| std::fs::metadata(path).unwrap().modified().unwrap());
    let mut shown: Vec<Shown> = Vec::new();
    for file in files {
        for event in events(&read(file)) {
            match event {
                Event::Restart(step) => shown.retain(|earlier| earlier.step < step),
                Event::Number(number) => shown.push(number),
                Event::Other => {}
            }
        }
    }
    shown
}

enum Event {
    Restart(u64),
    Number(Shown),
    Other,
}

/// The events of a file of records: length, its checksum, bytes, their checksum.
fn events(mut file: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while !file.is_empty() {
        let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        events.push(event(&file[12..12 + length]));
        file = &file[16 + length..];
    }
    events
}

fn event(bytes: &[u8]) -> Event {
    let fields = fields(bytes);
    let step = match number(&fields, 2) {
        Some(Field::Varint(step)) => *step,
        _ => 0,
    };
    if number(&fields, 7).is_some() {
        return Event::Restart(step);
    }
    let Some(Field::Bytes(summary)) = number(&fields, 5) else { return Event::Other };
    let Some((_, Field::Bytes(value))) = self::fields(summary).into_iter().next() else {
        return Event::Other;
    };
    let value = self::fields(value);
    match (number(&value, 1), number(&value, 2)) {
        (Some(Field::Bytes(tag)), Some(Field::Float(value))) => Event::Number(Shown {
            tag: String::from_utf8((*tag).to_owned()).unwrap(),
            step,
            value: *value,
        }),
        _ => Event::Other,
    }
}

enum Field<'a> {
    Varint(u64),
    Float(f32),
    Bytes(&'a [u8]),
    Double,
}

fn number<'a, 'b>(fields: &'b [(u64, Field<'a>)], wanted: u64) -> Option<&'b Field<'a>> {
    fields.iter().find(|(number, _)| *number == wanted).map(|(_, field)| field)
}

/// The fields of a protocol buffer message by their numbers.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let mut split = |length: usize| {
            let (taken, rest) = bytes.split_at(length);
            bytes = rest;
            taken
        };
        let field = match key & 7 {
            1 => {
                split(8);
                Field::Double
            }
            5 => Field::Float(f32::from_le_bytes(split(4).try_into().unwrap())),
            0 => Field::Varint(varint(&mut bytes)),
            2 => {
                let length = varint(&mut bytes) as usize;
                let (taken, rest) = bytes.split_at(length);
                bytes = rest;
                Field::Bytes(taken)
            }
            other => panic!("no wire type of an event: {other}"),
        };
        fields.push((key >> 3, field));
    }
    fields
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().expect("a number has an end");
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            break;
        }
    }
    value
}
