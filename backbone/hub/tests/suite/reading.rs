//! What lies where, who is asked, and what is chosen.

use hub::{Token, Want};
use test_hub::{Access, Fault, File, Hub, Side, sha256};

use crate::{Place, bytes, methods, read};

#[test]
fn files_lie_where_huggingface_hub_has_them() {
    let weights = bytes(100_000);
    let place = Place::with_weights(&weights);
    let path = place.fetch("hf:a/b/model.safetensors").unwrap();
    let commit = place.names("snapshots").remove(0);
    let hash = sha256(&weights);
    assert_eq!(path, place.kept().join("snapshots").join(&commit).join("model.safetensors"));
    assert_eq!(read(&path), weights);
    let link = std::fs::read_link(&path).unwrap();
    assert_eq!(link.to_str().unwrap(), format!("../../blobs/{hash}"));
    assert_eq!(read(&place.kept().join("refs/main")), commit.as_bytes());
    assert_eq!(place.names("blobs"), [hash.as_str()]);
    let lock = place.settings.cache.join(format!(".locks/models--a--b/{hash}.lock"));
    assert!(lock.is_file() && place.settings.cache.join("CACHEDIR.TAG").is_file());
    let requests = place.hub.requests();
    let expected = [("HEAD", Side::Hub), ("GET", Side::Hub), ("GET", Side::Cdn)];
    assert_eq!(methods(&requests), expected);

    // The hub is asked whether the branch has moved, but a commit stays what it is.
    assert_eq!(place.fetch("hf:a/b/model.safetensors").unwrap(), path);
    assert_eq!(methods(&place.hub.requests()), [("HEAD", Side::Hub)]);
    assert_eq!(place.fetch(&format!("hf:a/b@{commit}/model.safetensors")).unwrap(), path);
    assert!(place.hub.requests().is_empty());
}

#[test]
fn the_token_goes_to_the_hub_and_to_nobody_else() {
    let mut place = Place::with_weights(&bytes(1000));
    place.hub.change("a/b", |repo| repo.access = Access::Private("secret".into()));
    place.settings.token = Some(Token::new("secret", "HF_TOKEN"));
    place.fetch("hf:a/b").unwrap();
    let requests = place.hub.requests();
    assert!(requests.iter().any(|request| request.side == Side::Cdn));
    for request in requests {
        let sent = request.header("authorization");
        assert_eq!(sent, (request.side == Side::Hub).then_some("Bearer secret"), "{request:?}");
    }
}

#[test]
fn a_branch_that_moves_is_followed_and_what_was_there_stays() {
    let mut place = Place::with_weights(b"old");
    let old = place.fetch("hf:a/b").unwrap();
    let weights = File::large("new");
    place.hub.change("a/b", |repo| {
        repo.commit("main", &[("model.safetensors", weights)]);
    });
    // While the new one does not come, the branch is where it was.
    place.hub.fail(Side::Cdn, vec![Fault::Status(500, None); 5]);
    assert!(place.fetch("hf:a/b").is_err());
    place.settings.offline = true;
    assert_eq!(place.fetch("hf:a/b").unwrap(), old);
    place.settings.offline = false;
    let new = place.fetch("hf:a/b").unwrap();
    assert_eq!((read(&old), read(&new)), (b"old".to_vec(), b"new".to_vec()));
    place.settings.offline = true;
    assert_eq!(place.fetch("hf:a/b").unwrap(), new);
    // Two names of one content are one blob.
    assert_eq!(place.names("blobs").len(), 2);
}

#[test]
fn what_is_kept_is_used_where_the_hub_cannot_be_asked() {
    let mut place = Place::with_weights(b"weights");
    let path = place.fetch("hf:a/b").unwrap();
    let requests = place.hub.requests().len();
    place.settings.offline = true;
    for name in ["hf:a/b", "hf:a/b/model.safetensors", "hf:a/b@main"] {
        assert_eq!(place.fetch(name).unwrap(), path);
    }
    assert_eq!((requests, place.hub.requests().len()), (4, 0));
    place.settings.offline = false;
    for fault in [Fault::Status(503, None), Fault::Cut(0), Fault::Status(401, None)] {
        place.hub.fail(Side::Hub, [fault]);
        assert_eq!(place.fetch("hf:a/b").unwrap(), path);
    }
    place.hub = Hub::start();
    assert_eq!(place.fetch("hf:a/b").unwrap(), path, "nobody listens any more");
}

#[test]
fn revisions_and_renamed_repositories_are_found() {
    let place = Place::new();
    place.hub.change("a/new", |repo| {
        for revision in ["main", "v1", "refs/pr/3", "my/branch"] {
            repo.commit(revision, &[("model.safetensors", File::large(revision))]);
        }
    });
    place.hub.change("a/b", |repo| repo.moved_to = Some("a/new".into()));
    for (name, content) in [
        ("hf:a/b", "main"),
        ("hf:a/new@v1", "v1"),
        ("hf:a/new@refs/pr/3/model.safetensors", "refs/pr/3"),
        ("hf:a/b@my%2Fbranch", "my/branch"),
    ] {
        assert_eq!(read(&place.fetch(name).unwrap()), content.as_bytes(), "{name}");
    }
}

#[test]
fn a_configuration_and_all_shards_come_along() {
    let place = Place::new();
    let index = r#"{"weight_map": {"x": "model-1.safetensors", "y": "model-2.safetensors",
                    "z": "../../../out.safetensors"}}"#;
    place.hub.change("a/b", |repo| {
        let shard = File::large("shard");
        let files = [
            ("config.json", File::small("{}")),
            ("model-1.safetensors", shard.clone()),
            ("model-2.safetensors", shard),
            ("model.safetensors.index.json", File::small(index)),
            ("other.txt", File::small("not wanted")),
        ];
        repo.commit("main", &files);
    });
    let folder = place.fetch("hf:a/b").unwrap();
    let commit = place.names("snapshots").remove(0);
    assert_eq!(folder, place.kept().join("snapshots").join(&commit));
    let kept = place.names(&format!("snapshots/{commit}"));
    assert_eq!(
        kept,
        [
            "config.json",
            "model-1.safetensors",
            "model-2.safetensors",
            "model.safetensors.index.json"
        ]
    );
    let direct = place.fetch("hf:a/b/model.safetensors.index.json").unwrap();
    assert_eq!(direct, folder.join("model.safetensors.index.json"));
}

#[test]
fn a_network_is_asked_for_as_such() {
    let files = [("net.pt2", File::large("net")), ("model.safetensors", File::large("w"))];
    let place = Place::with(&files);
    let name = "hf:a/b".parse().unwrap();
    let path = hub::fetch(&name, Want::Network, &place.settings).unwrap();
    assert!(path.ends_with("net.pt2"));
}
