//! Several processes of a program that train together.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::program::{Finished, Workplace};

/// Longer than any training here takes.
const PATIENCE: Duration = Duration::from_secs(300);

/// Processes by rank. Those left are killed when dropped.
pub struct Together(Vec<Option<Child>>);

impl Together {
    /// Starts `count` processes; `command` gives that of each rank, which gets torchrun's variables
    /// and `variables`.
    pub fn start(
        count: usize,
        variables: &[(&str, &str)],
        mut command: impl FnMut(usize) -> Command,
    ) -> Self {
        // Free now; whoever else takes it meanwhile makes the test fail, not lie.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let start = |rank: usize| {
            let mut command = command(rank);
            for (name, value) in [
                ("RANK", rank.to_string()),
                ("WORLD_SIZE", count.to_string()),
                ("LOCAL_RANK", rank.to_string()),
                ("LOCAL_WORLD_SIZE", count.to_string()),
                ("MASTER_ADDR", "127.0.0.1".into()),
                ("MASTER_PORT", port.to_string()),
            ] {
                command.env(name, value);
            }
            command.envs(variables.iter().copied());
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            Some(command.spawn().unwrap())
        };
        Self((0..count).map(start).collect())
    }

    /// Sends a signal by its name ("KILL") to the process of this rank.
    pub fn signal(&self, rank: usize, signal: &str) {
        let pid = self.0[rank].as_ref().expect("it was taken").id().to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap();
        assert!(sent.success(), "rank {rank} is gone");
    }

    /// What a process said, once it has ended.
    pub fn end_of(&mut self, rank: usize) -> Finished {
        self.end_within(rank, PATIENCE)
    }

    /// What a process said, which ends within a time.
    #[track_caller]
    pub fn end_within(&mut self, rank: usize, time: Duration) -> Finished {
        let mut child = self.0[rank].take().expect("it was taken");
        // Pipes are read meanwhile: a full one would keep the process from ending.
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let [out, err] = [reader(out), reader(err)];
        let deadline = Instant::now() + time;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                panic!("rank {rank} has not ended within {time:?}:\n{}", err.join().unwrap());
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        Finished { ok: status.success(), out: out.join().unwrap(), err: err.join().unwrap() }
    }

    /// What all said, by rank, once they have ended.
    pub fn end(mut self) -> Vec<Finished> {
        (0..self.0.len()).map(|rank| self.end_of(rank)).collect()
    }
}

impl Drop for Together {
    fn drop(&mut self) {
        for child in self.0.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn reader(mut pipe: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = pipe.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    })
}

impl Workplace {
    /// Starts a training on `count` processes.
    pub fn start_together(
        &self,
        count: usize,
        output: &str,
        more: &[&str],
        variables: &[(&str, &str)],
    ) -> Together {
        let arguments = self.train_arguments(output, more);
        Together::start(count, variables, |_| self.command(&arguments))
    }

    /// Trains on `count` processes to the end; one is the program alone.
    pub fn train_together(&self, count: usize, output: &str, more: &[&str]) {
        if count == 1 {
            self.train(output, more).succeeded();
            return;
        }
        for finished in self.start_together(count, output, more, &[]).end() {
            finished.succeeded();
        }
    }

    /// Step, loss and gradient norm of every record of a step.
    pub fn curve(&self, run: &str) -> Vec<(u64, f64, f64)> {
        let records = super::program::records(&self.path(run)).into_iter();
        let of_step = |record: serde_json::Value| {
            let number = |name: &str| record[name].as_f64();
            Some((record["step"].as_u64()?, number("loss")?, number("grad_norm")?))
        };
        records.filter_map(of_step).collect()
    }
}

/// The largest difference of two curves' losses, and that of their gradient norms in proportion.
#[track_caller]
pub fn apart(one: &[(u64, f64, f64)], other: &[(u64, f64, f64)]) -> (f64, f64) {
    assert_eq!(one.len(), other.len());
    one.iter().zip(other).fold((0.0, 0.0), |(loss, norm), (a, b)| {
        assert_eq!(a.0, b.0);
        let of_norm = (a.2 - b.2).abs() / a.2.abs().max(1e-12);
        (f64::max(loss, (a.1 - b.1).abs()), f64::max(norm, of_norm))
    })
}

/// Waits until a half-written file lies in `folder`, at most half a minute.
pub fn wait_for_unfinished_file(folder: &Path) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        if entries.map(|entry| entry.file_name()).any(|n| n.to_string_lossy().ends_with(".tmp")) {
            return;
        }
    }
    panic!("no file was being written in {}", folder.display());
}
