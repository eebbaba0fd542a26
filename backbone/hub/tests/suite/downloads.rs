//! Connections that break, bytes that are wrong, and two who want the same.

use std::time::{Duration, Instant};

use test_hub::{Fault, Side, sha256};

use crate::{Place, bytes, read};

const NAME: &str = "hf:a/b/model.safetensors";

/// First bytes that were asked for on the CDN.
fn ranges(place: &Place) -> Vec<Option<String>> {
    let requests = place.hub.requests().into_iter().filter(|request| request.side == Side::Cdn);
    requests.map(|request| request.header("range").map(str::to_owned)).collect()
}

fn range(from: usize) -> Option<String> {
    Some(format!("bytes={from}-"))
}

#[test]
fn a_download_goes_on_where_it_broke_off() {
    let weights = bytes(3_000_000);
    let place = Place::with_weights(&weights);
    place.hub.fail(Side::Cdn, [Fault::Cut(1_000_000), Fault::Cut(500_000)]);
    assert_eq!(read(&place.fetch(NAME).unwrap()), weights);
    assert_eq!(ranges(&place), [None, range(1_000_000), range(1_500_000)]);
}

#[test]
fn what_came_before_the_last_failure_is_kept_for_the_next_time() {
    let weights = bytes(100_000);
    let place = Place::with_weights(&weights);
    let cuts = [Fault::Cut(60_000), Fault::Cut(0), Fault::Cut(0), Fault::Cut(0), Fault::Cut(0)];
    place.hub.fail(Side::Cdn, cuts);
    let refused = place.refusal(NAME);
    assert!(refused.starts_with("hf:a/b/model.safetensors: 127.0.0.1:"), "{refused}");
    assert!(refused.contains("after 60000 of 100000 bytes; tried 5 times"), "{refused}");
    assert!(refused.ends_with("what has come is kept, and continued next time"), "{refused}");
    assert_eq!(place.names("blobs"), [format!("{}.incomplete", sha256(&weights))]);
    assert!(place.names("snapshots").iter().all(|commit| place.names(commit).is_empty()));
    ranges(&place);
    assert_eq!(read(&place.fetch(NAME).unwrap()), weights);
    assert_eq!(ranges(&place), [range(60_000)]);
    assert_eq!(place.names("blobs"), [sha256(&weights)]);
}

#[test]
fn progress_renews_the_tries() {
    let weights = bytes(9 << 20);
    let place = Place::with_weights(&weights);
    place.hub.fail(Side::Cdn, vec![Fault::Cut(1 << 20); 8]);
    assert_eq!(read(&place.fetch(NAME).unwrap()), weights);
}

#[test]
fn wrong_bytes_are_never_used_and_not_kept() {
    let weights = bytes(100_000);
    let place = Place::with_weights(&weights);
    place.hub.fail(Side::Cdn, [Fault::WrongByte]);
    let refused = place.refusal(NAME);
    assert!(refused.contains("another hash than") && refused.contains(&sha256(&weights)));
    assert_eq!(place.names("blobs"), [""; 0]);
    // What a former download left may be of anything.
    let unfinished = place.kept().join(format!("blobs/{}.incomplete", sha256(&weights)));
    for rest in [bytes(50_000).iter().map(|b| b ^ 1).collect(), bytes(100_000), bytes(200_000)] {
        std::fs::write(&unfinished, rest).unwrap();
        assert_eq!(read(&place.fetch(NAME).unwrap()), weights);
        let _ = std::fs::remove_dir_all(place.kept().join("snapshots"));
        std::fs::remove_file(place.kept().join("blobs").join(sha256(&weights))).unwrap();
    }
    // Small files have git's hash.
    place.hub.fail(Side::Hub, [Fault::None, Fault::None, Fault::None, Fault::WrongByte]);
    assert!(place.refusal("hf:a/b/README.md").contains("another hash"));
    assert!(place.fetch("hf:a/b/README.md").is_ok());
}

#[test]
fn a_wrong_length_is_told() {
    let place = Place::with_weights(&bytes(1000));
    place.hub.fail(Side::Cdn, [Fault::TooLong(1)]);
    let refused = place.refusal(NAME);
    assert!(refused.contains("announced 1000 bytes, but 1001 are sent"), "{refused}");
    assert_eq!(place.names("blobs"), [""; 0]);
    assert!(place.fetch(NAME).is_ok());
}

#[test]
fn a_server_without_ranges_sends_it_all_again() {
    let weights = bytes(300_000);
    let place = Place::with_weights(&weights);
    place.hub.fail(Side::Cdn, [Fault::Cut(200_000), Fault::NoRange]);
    assert_eq!(read(&place.fetch(NAME).unwrap()), weights);
}

#[test]
fn a_server_that_asks_for_a_pause_gets_it() {
    let place = Place::with_weights(&bytes(1000));
    place.hub.fail(Side::Hub, [Fault::Status(429, Some(1)), Fault::Status(502, None)]);
    let begun = Instant::now();
    place.fetch(NAME).unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1));
    place.hub.requests();

    let place = Place::with_weights(&bytes(1000));
    place.hub.fail(Side::Hub, [Fault::Status(429, Some(10_000))]);
    let refused = place.refusal(NAME);
    assert!(refused.contains("status 429") && refused.contains("pause of 10000 s"), "{refused}");
    assert_eq!(place.hub.requests().len(), 1);
    place.hub.fail(Side::Hub, vec![Fault::Status(503, None); 5]);
    let refused = place.refusal(NAME);
    assert!(refused.contains("status 503; tried 5 times"), "{refused}");
    assert_eq!(place.hub.requests().len(), 5);
}

#[test]
fn a_silent_server_is_not_waited_for_without_end() {
    let place = Place::with_weights(&bytes(1000));
    place.hub.fail(Side::Cdn, [Fault::Silence(Duration::from_secs(5))]);
    let begun = Instant::now();
    place.fetch(NAME).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[test]
fn of_two_who_want_the_same_one_fetches_it() {
    let weights = bytes(1_000_000);
    let place = Place::with_weights(&weights);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| place.fetch(NAME).unwrap())).collect();
        for thread in threads {
            assert_eq!(read(&thread.join().unwrap()), weights);
        }
    });
    assert_eq!(ranges(&place), [None]);
}
