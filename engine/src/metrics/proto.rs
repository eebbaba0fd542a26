//! The few protocol buffer messages of a TensorBoard event file, encoded by
//! hand (`tensorflow/core/util/event.proto`, `framework/summary.proto`).

use std::time::Duration;

/// A message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(mut self, field: u32, value: u64) -> Self {
        self.key(field, 0);
        push_varint(&mut self.0, value);
        self
    }

    fn double(mut self, field: u32, value: f64) -> Self {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn float(mut self, field: u32, value: f32) -> Self {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// A string, bytes, or an embedded message.
    fn bytes(mut self, field: u32, value: impl AsRef<[u8]>) -> Self {
        self.key(field, 2);
        push_varint(&mut self.0, value.as_ref().len() as u64);
        self.0.extend(value.as_ref());
        self
    }

    fn message(self, field: u32, value: Message) -> Self {
        self.bytes(field, value.0)
    }

    fn key(&mut self, field: u32, wire_type: u32) {
        push_varint(&mut self.0, u64::from(field << 3 | wire_type));
    }
}

fn push_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// What an event tells.
pub(super) enum What<'a> {
    /// The first event of a file.
    FileVersion,
    /// Everything from this step on that was written before is void.
    Restart,
    Scalar {
        tag: &'a str,
        value: f32,
    },
    Image {
        tag: &'a str,
        png: &'a [u8],
        size: (u32, u32),
        channels: u8,
    },
    Text {
        tag: &'a str,
        text: &'a str,
    },
}

/// An `Event` message. `time` is since 1970.
pub(super) fn event(time: Duration, step: u64, what: What) -> Vec<u8> {
    let event = Message::default().double(1, time.as_secs_f64()).varint(2, step);
    let event = match what {
        What::FileVersion => event.bytes(3, "brain.Event:2"),
        // SessionLog { status: START }
        What::Restart => event.message(7, Message::default().varint(1, 1)),
        What::Scalar { tag, value } => {
            event.message(5, summary(Message::default().bytes(1, tag).float(2, value)))
        }
        What::Image { tag, png, size: (width, height), channels } => {
            let image = Message::default()
                .varint(1, height.into())
                .varint(2, width.into())
                .varint(3, channels.into())
                .bytes(4, png);
            event.message(5, summary(Message::default().bytes(1, tag).message(4, image)))
        }
        What::Text { tag, text } => event.message(5, summary(text_value(tag, text))),
    };
    event.0
}

/// A `Summary` of one value.
fn summary(value: Message) -> Message {
    Message::default().message(1, value)
}

/// A string tensor of shape [1], for the "text" plugin.
fn text_value(tag: &str, text: &str) -> Message {
    const DT_STRING: u64 = 7;
    let dimension = Message::default().varint(1, 1);
    let shape = Message::default().message(2, dimension);
    let tensor = Message::default().varint(1, DT_STRING).message(2, shape).bytes(8, text);
    let plugin = Message::default().bytes(1, "text");
    let metadata = Message::default().message(1, plugin);
    Message::default().bytes(1, tag).message(8, tensor).message(9, metadata)
}
