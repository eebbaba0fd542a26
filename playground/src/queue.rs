//! One model, and whoever asks it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use serde_json::Value;
use tokio::sync::oneshot;

use crate::{App, Question};

/// Questions that may wait; a page has one or two of its own at a time.
const LENGTH: usize = 32;

/// The answer, or why there is none.
pub type Answer = Result<Value, String>;

struct Job {
    question: Question,
    reply: oneshot::Sender<Answer>,
}

/// Where questions are put.
#[derive(Debug, Clone)]
pub struct Queue {
    sender: SyncSender<Job>,
    unanswered: Arc<AtomicUsize>,
}

/// Where they are taken out.
pub struct Worker {
    receiver: Receiver<Job>,
    unanswered: Arc<AtomicUsize>,
}

/// A queue, empty.
pub fn queue() -> (Queue, Worker) {
    let (sender, receiver) = sync_channel(LENGTH);
    let unanswered = Arc::new(AtomicUsize::new(0));
    (Queue { sender, unanswered: unanswered.clone() }, Worker { receiver, unanswered })
}

/// No answer will come.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// Too many wait already.
    Full,
    /// The program ends.
    Closed,
}

impl Queue {
    /// Questions that wait or are being answered.
    pub fn unanswered(&self) -> usize {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// Puts a question at the end and waits for its answer. Who stops waiting takes it back.
    pub async fn ask(&self, question: Question) -> Result<Answer, Refused> {
        let (reply, answer) = oneshot::channel();
        self.unanswered.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.sender.try_send(Job { question, reply }) {
            self.unanswered.fetch_sub(1, Ordering::Relaxed);
            return Err(match error {
                TrySendError::Full(_) => Refused::Full,
                TrySendError::Disconnected(_) => Refused::Closed,
            });
        }
        answer.await.map_err(|_| Refused::Closed)
    }
}

impl Worker {
    /// Answers until nobody can ask any more.
    pub fn work(self, app: &mut dyn App) {
        for job in self.receiver {
            let answer = (!job.reply.is_closed()).then(|| answer(app, &job.question));
            // Who has an answer must not find itself among those who wait.
            self.unanswered.fetch_sub(1, Ordering::Relaxed);
            if let Some(answer) = answer {
                // Who asked may have gone meanwhile.
                let _ = job.reply.send(answer);
            }
        }
    }
}

/// The app's answer; a fault of ours or of libtorch's inside it is one as well, and the next
/// question is answered as ever.
fn answer(app: &mut dyn App, question: &Question) -> Answer {
    match catch_unwind(AssertUnwindSafe(|| app.answer(question))) {
        Ok(answer) => answer.map_err(|error| format!("{error:#}")),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
            let first = text.lines().next().unwrap_or_default();
            Err(format!("{:?} failed inside the program: {first}", question.name))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anyhow::bail;
    use serde_json::json;

    use super::*;

    struct Counts(u64);

    impl App for Counts {
        fn about(&self) -> Value {
            Value::Null
        }

        fn answer(&mut self, question: &Question) -> anyhow::Result<Value> {
            match question.name.as_str() {
                "count" => self.0 += 1,
                "refuse" => bail!("no"),
                _ => panic!("a fault"),
            }
            Ok(json!(self.0))
        }
    }

    fn question(name: &str) -> Question {
        Question { name: name.to_owned(), body: Value::Null, picture: None }
    }

    fn answers(names: &[&str]) -> Vec<Result<Answer, Refused>> {
        let (queue, worker) = queue();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let asking = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let mut answers = Vec::new();
                for name in &names {
                    answers.push(queue.ask(question(name)).await);
                }
                assert_eq!(queue.unanswered(), 0);
                answers
            })
        });
        worker.work(&mut Counts(0));
        asking.join().unwrap()
    }

    #[test]
    fn a_fault_is_an_answer_and_the_next_question_is_answered() {
        let told = answers(&["count", "refuse", "fault", "count"]);
        let fault = "\"fault\" failed inside the program: a fault".to_owned();
        assert_eq!(
            told,
            [Ok(Ok(json!(1))), Ok(Err("no".to_owned())), Ok(Err(fault)), Ok(Ok(json!(2)))]
        );
    }

    #[test]
    fn who_no_longer_waits_costs_nothing_and_too_many_are_refused() {
        let (queue, worker) = queue();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            for _ in 0..LENGTH {
                let waiting = queue.ask(question("count"));
                assert!(tokio::time::timeout(Duration::from_millis(1), waiting).await.is_err());
            }
            assert_eq!(queue.ask(question("count")).await, Err(Refused::Full));
        });
        assert_eq!(queue.unanswered(), LENGTH);
        drop(queue);
        let mut app = Counts(0);
        worker.work(&mut app);
        assert_eq!(app.0, 0);
    }
}
