//! What needs no other process. Several processes are tested in `tests/distributed.rs`.

use super::*;

#[test]
fn alone_everything_is_as_it_was() {
    let world = ProcessGroup::alone();
    assert!(world.is_alone() && world.is_main());
    let mut values = [1.5, -2.0];
    world.sum(&mut values).unwrap();
    world.mean(&mut values).unwrap();
    world.max(&mut values).unwrap();
    assert_eq!(values, [1.5, -2.0]);
    assert!(world.any(true).unwrap() && !world.any(false).unwrap());
    assert_eq!(world.gather(&"own".to_owned()).unwrap(), ["own"]);
    assert_eq!(world.broadcast_from_rank0(|| Ok::<_, Error>(7)).unwrap(), 7);
    let refused = world.all_ok::<(), _>(Err(Error::data("no"))).unwrap_err();
    assert_eq!(refused.to_string(), "no");
    let rows = world.gather_rows(&Tensor::from_slice(&[1.0, 2.0])).unwrap();
    assert_eq!(rows.size(), [2]);
    assert!(world.sync_batch_norm().is_none());
    world.barrier().unwrap();
}

#[test]
fn what_libtorch_says_around_its_message_is_left_out() {
    let sentences = [
        ("Connection closed.\nException raised from wait at x.cpp:1", "Connection closed"),
        (
            "[/src/gloo/pair.cc:553] Connection closed by peer [127.0.0.1]:20908. This is \
             typically caused by a remote worker crashing.",
            "Connection closed by peer [127.0.0.1]:20908",
        ),
        ("[127.0.0.1] is gone", "[127.0.0.1] is gone"),
        ("short", "short"),
    ];
    for (said, told) in sentences {
        assert_eq!(sentence(said), told);
    }
}

#[test]
fn advice_is_given_where_another_process_is_the_cause() {
    for reason in [
        "Connection closed by peer [127.0.0.1]:20908",
        "Timed out waiting 5000ms for recv operation to complete",
        "writev [127.0.0.1]:1: Broken pipe",
        "waited in vain for rank 3",
    ] {
        assert!(is_of_others(reason), "{reason}");
    }
    assert!(!is_of_others("CUDA out of memory. Tried to allocate 2 GiB"));
}
