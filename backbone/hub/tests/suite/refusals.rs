//! What the hub refuses, and servers that are none.

use hub::{Error, Token};
use test_hub::{Access, Fault, File, Hub, Side};

use crate::Place;

#[test]
fn what_is_not_there_is_named_with_what_is() {
    let place = Place::with(&[("x/one.pth", File::large("1")), ("README.md", File::small("2"))]);
    let refused = place.refusal("hf:a/b/two.pth");
    assert_eq!(
        refused,
        "hf:a/b/two.pth: there is no file \"two.pth\" at main. Its weight files are x/one.pth"
    );
    let refused = place.refusal("hf:a/b");
    assert!(refused.contains("no weight file") && refused.ends_with("x/one.pth"), "{refused}");
    let refused = place.refusal("hf:a/b@v9");
    assert_eq!(refused, "hf:a/b@v9: the repository has no branch, tag or commit \"v9\"");
    assert!(place.names("snapshots").is_empty());
}

#[test]
fn who_may_not_read_learns_what_to_do() {
    let mut place = Place::with_weights(b"weights");
    let page = format!("{}/a/b", place.hub.endpoint());
    let refused = place.refusal("hf:a/none");
    assert!(refused.contains("no such repository") && refused.contains("private"), "{refused}");
    assert!(refused.contains("HF_TOKEN") && refused.contains("hf auth login"), "{refused}");

    place.hub.change("a/b", |repo| repo.access = Access::Gated);
    for token in [None, Some(Token::new("secret", "HF_TOKEN"))] {
        place.settings.token = token.clone();
        let refused = place.refusal("hf:a/b");
        assert!(refused.contains("licence") && refused.contains(&page), "{refused}");
        assert_eq!(refused.contains("the token from HF_TOKEN"), token.is_some(), "{refused}");
    }
    place.hub.change("a/b", |repo| repo.access = Access::Private("other".into()));
    let refused = place.refusal("hf:a/b");
    assert!(refused.contains("does not accept the token from HF_TOKEN"), "{refused}");
    place.hub.fail(Side::Hub, [Fault::Status(403, None)]);
    let refused = place.refusal("hf:a/b");
    assert!(refused.contains("needs the right to read"), "{refused}");
    assert!(!refused.contains("secret"));
    // Waiting does not help.
    assert_eq!(place.hub.requests().len(), 5);
}

#[test]
fn what_is_not_kept_is_not_asked_for_offline() {
    let mut place = Place::with_weights(b"weights");
    place.settings.offline = true;
    for name in ["hf:a/b", "hf:a/b/model.safetensors"] {
        let error = place.fetch(name).unwrap_err();
        assert!(matches!(error, Error::NotCached { .. }));
        let text = error.to_string();
        assert!(text.contains("HF_HUB_OFFLINE") && text.starts_with(name), "{text}");
    }
    assert!(place.hub.requests().is_empty() && !place.settings.cache.exists());
}

#[test]
fn nobody_listens() {
    let mut place = Place::new();
    place.hub = Hub::start();
    let refused = place.refusal("hf:a/b");
    assert!(refused.contains("tried 5 times") && refused.contains("HF_ENDPOINT"), "{refused}");
    place.settings.endpoint = "http://no-such-host.invalid".into();
    let refused = place.refusal("hf:a/b");
    assert!(refused.contains("no-such-host.invalid: "), "{refused}");
}

#[test]
fn a_server_that_means_harm_reaches_no_other_file() {
    let place = Place::with_weights(b"weights");
    let name = "hf:a/b/model.safetensors";
    for (header, value) in [
        ("X-Linked-Etag", "\"../../../../out\""),
        ("X-Linked-Etag", "\"\""),
        ("X-Repo-Commit", "../../../../../out"),
        ("X-Repo-Commit", ""),
    ] {
        place.hub.fail(Side::Hub, [Fault::Header(header, value.into())]);
        let refused = place.refusal(name);
        assert!(refused.contains("as no hub does"), "{header} {value}: {refused}");
    }
    for target in ["file:///etc/passwd", "gopher://x", ""] {
        place.hub.fail(Side::Hub, [Fault::None, Fault::Redirect(target.into())]);
        let refused = place.refusal(name);
        assert!(refused.contains("redirects to no address"), "{refused}");
    }
    let own = format!("{}/x", place.hub.endpoint());
    place.hub.fail(Side::Hub, vec![Fault::Redirect(own); 11]);
    let refused = place.refusal(name);
    assert!(refused.contains("redirects more than 10 times"), "{refused}");
    // Signed addresses are for nobody's eyes.
    place.hub.fail(Side::Cdn, [Fault::Status(403, None)]);
    let refused = place.refusal(name);
    assert!(refused.contains("status 403") && !refused.contains("signature"), "{refused}");
    assert!(place.fetch(name).is_ok());
}
