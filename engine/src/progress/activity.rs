//! Work whose length nobody knows, on standard error: a line that moves on a terminal, a line of
//! text every few seconds elsewhere.

use std::io::IsTerminal;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::LINE_EVERY;

/// Time between two pictures of the line that moves.
const TICK: Duration = Duration::from_millis(120);

/// Shows that something is being done until it is dropped.
pub struct Activity(Shown);

enum Shown {
    Spinner(ProgressBar),
    Lines { end: Option<Sender<()>>, thread: Option<JoinHandle<()>> },
}

impl Activity {
    /// `what` is being done ("listing the files").
    pub fn new(what: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(Shown::lines(what, LINE_EVERY, |line| eprintln!("{line}")));
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = bar.with_style(style).with_message(what.to_owned());
        bar.enable_steady_tick(TICK);
        Self(Shown::Spinner(bar))
    }

    /// Says something without tearing the line.
    pub fn note(&self, text: &str) {
        match &self.0 {
            Shown::Spinner(bar) => bar.suspend(|| eprintln!("{text}")),
            Shown::Lines { .. } => eprintln!("{text}"),
        }
    }
}

impl Shown {
    /// A line after each `every`, from a thread of its own.
    fn lines(what: &str, every: Duration, print: impl Fn(&str) + Send + 'static) -> Self {
        let (end, ended) = mpsc::channel::<()>();
        let (what, begun) = (what.to_owned(), Instant::now());
        let thread = std::thread::spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(every) {
                print(&format!("{what}: {} s so far", begun.elapsed().as_secs()));
            }
        });
        Self::Lines { end: Some(end), thread: Some(thread) }
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        match &mut self.0 {
            Shown::Spinner(bar) => bar.finish_and_clear(),
            Shown::Lines { end, thread } => {
                drop(end.take());
                // A thread that could not print has nothing more to say.
                let _ = thread.take().map(JoinHandle::join);
            }
        }
    }
}

/// What `body` gives, of which it is `shown` that `what` is being done. Nothing may be written to
/// standard error meanwhile.
pub fn during<T>(shown: bool, what: &str, body: impl FnOnce() -> T) -> T {
    let _activity = shown.then(|| Activity::new(what));
    body()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn lines_come_while_it_lasts_and_none_after() {
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = Arc::clone(&lines);
        let print = move |line: &str| kept.lock().unwrap().push(line.to_owned());
        let activity = Activity(Shown::lines("listing", Duration::from_millis(1), print));
        let deadline = Instant::now() + Duration::from_secs(60);
        while lines.lock().unwrap().len() < 2 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(activity);
        let said = lines.lock().unwrap().clone();
        assert!(said.len() >= 2 && said[0] == "listing: 0 s so far", "{said:?}");
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(lines.lock().unwrap().len(), said.len());
    }

    #[test]
    fn the_body_gives_its_value_whether_shown_or_not() {
        assert_eq!(during(true, "counting", || 1) + during(false, "counting", || 2), 3);
    }
}
