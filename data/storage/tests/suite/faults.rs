//! What goes wrong on the way, and what is made of it.

use std::time::{Duration, Instant};

use storage::{Error, Settings, Storage};
use test_objects::{Fault, Objects, Rule};

use crate::{at, count, numbered, settings, storage, with_object};

#[test]
fn what_goes_away_by_itself_is_tried_again() {
    let bytes = numbered(200_000);
    let (objects, object) = with_object(bytes.clone());
    let storage = storage(&objects);
    let faults = [
        Fault::slow_down(None),
        Fault::too_many(None),
        Fault::Refused { status: 500, code: "InternalError", retry_after: None },
        Fault::Reset(0),
        Fault::Reset(100_000),
        Fault::Cut(100_000),
        Fault::Shorter(1),
        Fault::Longer(1),
        Fault::AnswerLost,
    ];
    for fault in faults {
        objects.requests();
        objects.fail(Rule::get("a.bin").times(2), fault.clone());
        assert!(storage.read(&object, 1000..199_000).unwrap() == bytes[1000..199_000], "{fault:?}");
        assert_eq!(count(&objects, "GET"), 3, "{fault:?}");
        assert_eq!(storage.trouble(), None);
    }
}

#[test]
fn a_server_that_stalls_is_left_after_a_while() {
    let (objects, object) = with_object(numbered(100_000));
    let settings = Settings { timeout: Duration::from_secs(2), ..settings(&objects) };
    let storage = Storage::new(settings).unwrap();
    objects.fail(Rule::get("a.bin"), Fault::Stall(10, Duration::from_secs(60)));
    objects.fail(Rule::get("a.bin"), Fault::Silence(Duration::from_secs(60)));
    let begun = Instant::now();
    assert_eq!(storage.read(&object, 0..10).unwrap().len(), 10);
    assert!(begun.elapsed() < Duration::from_secs(50));
}

#[test]
fn nothing_is_tried_for_ever() {
    let (objects, object) = with_object("content");
    let storage = storage(&objects);
    objects.fail(Rule::get("a.bin").always(), Fault::slow_down(None));
    objects.requests();
    let error = storage.read(&object, 0..7).unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }));
    let said = "s3://bucket/a.bin: reading bytes 0..7: status 503 SlowDown";
    assert!(error.to_string().starts_with(said), "{error}");
    assert!(error.to_string().contains("given up after 4 tries in "), "{error}");
    assert_eq!(count(&objects, "GET"), 4);

    // By time.
    let limit = Duration::from_millis(500);
    let short = Settings { limit, tries: 1000, ..settings(&objects) };
    let short = Storage::new(short).unwrap();
    let begun = Instant::now();
    let error = short.read(&object, 0..7).unwrap_err().to_string();
    assert!(begun.elapsed() < Duration::from_secs(5) && error.contains("of the "), "{error}");
}

#[test]
fn a_server_is_left_alone_as_long_as_it_asks_for() {
    let (objects, object) = with_object("content");
    let storage = storage(&objects);
    objects.fail(Rule::get("a.bin"), Fault::slow_down(Some(1)));
    let begun = Instant::now();
    storage.read(&object, 0..7).unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1));
    // Longer than anybody waits: it is said at once.
    objects.fail(Rule::get("a.bin"), Fault::too_many(Some(600)));
    let begun = Instant::now();
    let error = storage.read(&object, 0..7).unwrap_err().to_string();
    assert!(error.contains("asks for a pause of 600 s"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn what_will_not_go_away_is_said_at_once() {
    let (objects, object) = with_object("content");
    let storage = storage(&objects);
    let read = |fault| {
        objects.fail(Rule::get("a.bin"), fault);
        objects.requests();
        let error = storage.read(&object, 0..7).unwrap_err();
        assert_eq!(count(&objects, "GET"), 1, "{error}");
        assert!(error.to_string().starts_with("s3://bucket/a.bin: reading bytes 0..7"), "{error}");
        error
    };
    let denied = read(Fault::denied());
    assert!(matches!(denied, Error::Denied { .. }) && denied.to_string().contains("AccessDenied"));
    assert!(denied.to_string().contains("AWS_ACCESS_KEY_ID"), "{denied}");
    let expired = read(Fault::expired());
    assert!(matches!(expired, Error::Denied { .. }), "{expired}");
    assert!(expired.to_string().contains("credentials have expired"), "{expired}");
    // An answer to a look has no body that would say why: a read is asked, perhaps more than once.
    objects.fail(Rule::any("a.bin").always(), Fault::expired());
    let expired = storage.head(&object.location).unwrap_err().to_string();
    assert!(expired.contains("looking at it") && expired.contains("have expired"), "{expired}");
    let none = storage.head(&at("s3://bucket/none")).unwrap_err();
    assert!(none.is_not_found() && none.to_string().contains("no such object"), "{none}");
    let none = storage.list(&at("s3://nowhere/x/"), |_| {}).unwrap_err();
    assert!(none.to_string().contains("s3://nowhere/x/: listing it"), "{none}");
}

#[test]
fn another_object_of_the_same_name_is_an_error() {
    let objects = Objects::start();
    for address in ["s3://bucket".to_owned(), format!("{}/bucket", objects.endpoint())] {
        objects.put("bucket", "a.bin", "content");
        let storage = storage(&objects);
        let object = storage.head(&at(&format!("{address}/a.bin"))).unwrap();
        objects.put("bucket", "a.bin", "CONTENT");
        let error = storage.read(&object, 0..3).unwrap_err();
        assert!(matches!(error, Error::Changed { .. }), "{error}");
        objects.put("bucket", "a.bin", "c");
        let error = storage.read(&object, 5..7).unwrap_err();
        assert!(matches!(error, Error::Changed { .. }), "{error}");
        objects.remove("bucket", "a.bin");
        assert!(storage.read(&object, 0..3).unwrap_err().is_not_found());
    }
}

#[test]
fn a_failed_write_leaves_what_was_there() {
    let objects = Objects::start();
    objects.put("bucket", "a.bin", "old");
    let storage = storage(&objects);
    let large = numbered(40 << 20);
    objects.fail(Rule::put("partNumber=2").always(), Fault::denied());
    let error = storage.put(&at("s3://bucket/a.bin"), large.clone()).unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error}");
    assert_eq!(objects.get("bucket", "a.bin").unwrap(), b"old");
    assert_eq!(count(&objects, "DELETE"), 1, "its parts are given up");
    objects.recover();
    // Parts are sent again, and what puts them together.
    objects.fail(Rule::put("partNumber=1"), Fault::slow_down(None));
    objects.fail(Rule::post("uploadId"), Fault::AnswerLost);
    storage.put(&at("s3://bucket/a.bin"), large.clone()).unwrap();
    assert!(objects.get("bucket", "a.bin").unwrap() == large);
}

#[test]
fn a_listing_goes_on_where_it_broke_off() {
    let objects = Objects::start();
    for n in 0..1500 {
        objects.put("bucket", &format!("set/{n:04}.txt"), "x");
    }
    let storage = storage(&objects);
    objects.fail(Rule::get("list-type").after(1).times(2), Fault::slow_down(None));
    let listed = storage.list(&at("s3://bucket/set/"), |_| {}).unwrap();
    let names: Vec<&str> = listed.iter().map(|object| object.location.file_name()).collect();
    assert_eq!(names.len(), 1500);
    assert!(names.is_sorted() && names[0] == "0000.txt", "each once and in order");
}
