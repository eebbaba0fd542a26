//! Pickles by hand, faulty ones, and bytes from anywhere.

use super::*;
use proptest::prelude::*;

#[test]
fn python_2_text_is_latin_1() {
    // pickle.dumps({"caf\xe9": 1}, 2) in Python 2
    let pickle = Pickle::parse(b"\x80\x02}q\x00U\x04caf\xe9q\x01K\x01s.").unwrap();
    let Node::Dict(items) = pickle.node(pickle.root) else { panic!("no dictionary") };
    assert_eq!(pickle.text(items[0].0).unwrap(), "café");
    assert_eq!(pickle.int(items[0].1), Some(1));
}

#[test]
fn integers_of_every_width() {
    for (bytes, value) in [
        (&b"\x80\x02K\xff."[..], 255),
        (b"\x80\x02M\xff\xff.", 65535),
        (b"\x80\x02J\xff\xff\xff\xff.", -1),
        (b"\x80\x02\x8a\x00.", 0),
        (b"\x80\x02\x8a\x02\x00\x80.", -32768),
        (b"\x80\x02\x8a\x05\x00\x00\x00\x00\x01.", 1 << 32),
    ] {
        let pickle = Pickle::parse(bytes).unwrap();
        assert_eq!(pickle.int(pickle.root), Some(value));
    }
}

#[test]
fn each_fault_has_its_sentence() {
    for (bytes, sentence) in [
        (&b"\x80\x02"[..], "ends early"),
        (b"\x80\x07N.", "protocol 7"),
        (b"\x80\x02.", "more values than"),
        (b"\x80\x02(R.", "more values than"),
        // Below the mark there is enough, but that is out of reach.
        (b"\x80\x02NN(R.", "more values than"),
        (b"\x80\x02h\x05.", "number 5"),
        (b"\x80\x02NNb.", "takes none"),
        (b"\x80\x02(Nd.", "no value"),
        (b"\x80\x02t.", "without its mark"),
        (b"\x80\x02X\xff\xff\xff\x7fab.", "ends early"),
        (b"I1x\n.", "a number that is none"),
        (b"S'a\n.", "without quotes"),
    ] {
        let message = Pickle::parse(bytes).unwrap_err();
        assert!(message.contains(sentence), "{message:?} should contain {sentence:?}");
    }
}

#[test]
fn a_list_may_hold_itself() {
    let pickle = Pickle::parse(b"\x80\x02]q\x00h\x00a.").unwrap();
    assert_eq!(pickle.sequence(pickle.root), Some(&[pickle.root][..]));
}

proptest! {
    /// Bytes from anywhere never panic, hang or fill the memory.
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Pickle::parse(&bytes);
    }

    /// The same with opcodes far more frequent than in random bytes.
    #[test]
    fn any_opcodes_are_survived(
        choice in proptest::collection::vec(0..63usize, 0..200),
    ) {
        const OPCODES: &[u8; 63] = b"(.012GJKMNQRTUXabcdehjlqrstu}])BC\n\x00\x01\x02\x81\x85\x86\x87\
            \x88\x89\x8a\x8c\x8f\x90\x91\x92\x93\x94\x96\nFILPSVgiop";
        let bytes: Vec<u8> = choice.iter().map(|&index| OPCODES[index]).collect();
        let _ = Pickle::parse(&bytes);
    }
}
