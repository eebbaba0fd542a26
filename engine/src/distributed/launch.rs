//! Which process of how many this is, as torchrun or Slurm's srun tell it.

use std::fmt::Display;
use std::str::FromStr;

use crate::{Error, Result};

/// First port that is used where none is given: a job's number is added, so that
/// two jobs on a machine do not meet.
const FIRST_PORT: u64 = 20_000;
/// How many ports there are to choose from.
const PORTS: u64 = 20_000;

/// This process's place among those that train together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// This process's number, from 0.
    pub rank: usize,
    /// How many processes there are.
    pub world_size: usize,
    /// This process's number among those on its machine, from 0.
    pub local_rank: usize,
    /// How many processes are on this machine.
    pub local_world_size: usize,
    /// Name or address of the machine where all meet.
    pub master_addr: String,
    /// Port there.
    pub master_port: u16,
    /// Whether torchrun already serves the store there.
    pub agent_store: bool,
    /// How often the launcher has restarted this process's machine's part of the job.
    pub restarts: u64,
    /// What the launcher calls the job.
    pub name: Option<String>,
    /// What tells this launch, restarts included, from every other one, if anything does.
    pub job: Option<String>,
    /// Whether the launcher gives each process cores of its own.
    pub own_cores: bool,
}

/// Looks up an environment variable; none if it is unset or empty.
type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Launch {
    /// From this process's environment; none if it was started alone.
    ///
    /// # Errors
    /// [`Error::Input`] for a variable that is missing or makes no sense.
    pub fn from_env() -> Result<Option<Self>> {
        Self::from_lookup(&|name| std::env::var(name).ok())
    }

    /// From what `lookup` says of environment variables:
    /// - torchrun's `RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `LOCAL_WORLD_SIZE`, `MASTER_ADDR`,
    ///   `MASTER_PORT`, `TORCHELASTIC_USE_AGENT_STORE`, `TORCHELASTIC_RESTART_COUNT`,
    ///   `TORCHELASTIC_RUN_ID`, of which only the first two and the address are needed;
    /// - else srun's `SLURM_STEP_NUM_TASKS`, `SLURM_PROCID`, `SLURM_LOCALID`, `SLURM_NODEID`,
    ///   `SLURM_STEP_TASKS_PER_NODE`, `SLURM_STEP_NODELIST`, `SLURM_JOB_ID`,
    ///   `SLURM_RESTART_COUNT`, `SLURM_CPUS_PER_TASK`; `MASTER_ADDR` and `MASTER_PORT` are taken where they are set.
    ///
    /// # Errors
    /// As [`Launch::from_env`].
    pub fn from_lookup(lookup: Lookup) -> Result<Option<Self>> {
        let found = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
        let launch = if found("RANK").is_some() || found("WORLD_SIZE").is_some() {
            Some(torchrun(&found)?)
        } else if parsed(&found, "SLURM_STEP_NUM_TASKS")?.is_some_and(|tasks: usize| tasks > 1) {
            Some(slurm(&found)?)
        } else {
            None
        };
        launch.as_ref().map(Self::check).transpose()?;
        Ok(launch)
    }

    fn check(&self) -> Result<()> {
        let below = |operand: &str, value: usize, limit: usize| {
            if value < limit {
                return Ok(());
            }
            Err(Error::invalid(operand, value, format!("it must be below {limit}, the size")))
        };
        below("rank", self.rank, self.world_size)?;
        below("local rank", self.local_rank, self.local_world_size)?;
        if i32::try_from(self.world_size).is_err() {
            return Err(Error::invalid("world size", self.world_size, "it must be below 2^31"));
        }
        Ok(())
    }

    /// What the job's keys in the store begin with.
    pub(super) fn job_key(&self) -> String {
        self.name.as_deref().unwrap_or("job").replace('/', "_")
    }

    /// Whether the run that `owner` last wrote to is this launch's own, so that a restart goes on
    /// with it.
    pub fn owns(&self, owner: Option<&str>) -> bool {
        // A store of torchrun's lives as long as torchrun: what it calls the launch is this
        // launch's alone. A Slurm job's number is too, but its steps share it.
        let restarted = self.agent_store || self.restarts > 0;
        restarted && self.job.is_some() && self.job.as_deref() == owner
    }

    /// Whether all processes are on one machine.
    pub fn is_local(&self) -> bool {
        self.local_world_size == self.world_size
    }
}

fn torchrun(found: Lookup) -> Result<Launch> {
    let world_size = needed(found, "WORLD_SIZE")?;
    let rank = needed(found, "RANK")?;
    // Of one process, nobody has to be met.
    let (master_addr, master_port) = match world_size {
        1 => (
            found("MASTER_ADDR").unwrap_or_default(),
            parsed(found, "MASTER_PORT")?.unwrap_or_default(),
        ),
        _ => (text(found, "MASTER_ADDR")?, needed(found, "MASTER_PORT")?),
    };
    Ok(Launch {
        rank,
        world_size,
        local_rank: parsed(found, "LOCAL_RANK")?.unwrap_or(rank),
        local_world_size: parsed(found, "LOCAL_WORLD_SIZE")?.unwrap_or(world_size),
        master_addr,
        master_port,
        agent_store: found("TORCHELASTIC_USE_AGENT_STORE").as_deref() == Some("True"),
        restarts: parsed(found, "TORCHELASTIC_RESTART_COUNT")?.unwrap_or(0),
        name: found("TORCHELASTIC_RUN_ID").filter(|id| id != "none"),
        // A name is drawn in torchrun's store when the processes meet.
        job: None,
        own_cores: false,
    })
}

fn slurm(found: Lookup) -> Result<Launch> {
    let world_size: usize = needed(found, "SLURM_STEP_NUM_TASKS")?;
    let node: usize = parsed(found, "SLURM_NODEID")?.unwrap_or(0);
    let per_node = found("SLURM_STEP_TASKS_PER_NODE").unwrap_or_else(|| world_size.to_string());
    let Some(local_world_size) = tasks_on(&per_node, node) else {
        let rule = format!("it must list tasks for machine {node}, as 8(x4),6");
        return Err(Error::invalid("SLURM_STEP_TASKS_PER_NODE", format!("{per_node:?}"), rule));
    };
    let job_number: u64 = needed(found, "SLURM_JOB_ID")?;
    let master_addr = match found("MASTER_ADDR") {
        Some(address) => address,
        None => {
            let list = text(found, "SLURM_STEP_NODELIST")?;
            first_host(&list).ok_or_else(|| {
                let rule = "it must list machines, as node[01-04,7],login";
                Error::invalid("SLURM_STEP_NODELIST", format!("{list:?}"), rule)
            })?
        }
    };
    let master_port = match parsed(found, "MASTER_PORT")? {
        Some(port) => port,
        None => (FIRST_PORT + job_number % PORTS) as u16,
    };
    Ok(Launch {
        rank: needed(found, "SLURM_PROCID")?,
        world_size,
        local_rank: needed(found, "SLURM_LOCALID")?,
        local_world_size,
        master_addr,
        master_port,
        agent_store: false,
        restarts: parsed(found, "SLURM_RESTART_COUNT")?.unwrap_or(0),
        name: Some(format!("slurm {job_number}")),
        job: Some(format!("slurm {job_number}")),
        own_cores: found("SLURM_CPUS_PER_TASK").is_some(),
    })
}

fn text(found: Lookup, name: &str) -> Result<String> {
    found(name).ok_or_else(|| {
        let rule = "several processes need it to meet; torchrun and srun set it";
        Error::invalid(name, "not set", rule)
    })
}

fn parsed<T: FromStr>(found: Lookup, name: &str) -> Result<Option<T>>
where
    T::Err: Display,
{
    let Some(value) = found(name) else { return Ok(None) };
    match value.trim().parse() {
        Ok(number) => Ok(Some(number)),
        Err(error) => {
            let rule = format!("it must be a whole number ({error})");
            Err(Error::invalid(name, format!("{value:?}"), rule))
        }
    }
}

fn needed<T: FromStr>(found: Lookup, name: &str) -> Result<T>
where
    T::Err: Display,
{
    text(found, name)?;
    parsed(found, name)?.ok_or_else(|| Error::invalid(name, "not set", "it is needed"))
}

/// Tasks on machine `node` by Slurm's short form: `8(x4),6` is 8 on four, 6 on a fifth.
fn tasks_on(list: &str, node: usize) -> Option<usize> {
    let mut before = 0;
    for entry in list.split(',') {
        let (tasks, machines) = match entry.split_once("(x") {
            Some((tasks, rest)) => (tasks, rest.strip_suffix(')')?.parse().ok()?),
            None => (entry, 1),
        };
        before += machines;
        if node < before {
            return tasks.trim().parse().ok();
        }
    }
    None
}

/// The first machine of Slurm's short form: `node[007-012,3],login` is node007.
fn first_host(list: &str) -> Option<String> {
    let Some((start, rest)) = list.split_once('[').filter(|(start, _)| !start.contains(',')) else {
        return list.split(',').next().map(str::trim).filter(|h| !h.is_empty()).map(str::to_owned);
    };
    let (inside, after) = rest.split_once(']')?;
    let first = inside.split([',', '-']).next().filter(|number| !number.is_empty())?;
    let end = after.split(',').next().unwrap_or_default();
    // A second bracket: its first number too.
    Some(start.to_owned() + first + &first_host(end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(variables: &[(&str, &str)]) -> Result<Option<Launch>> {
        Launch::from_lookup(&|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    const TORCHRUN: [(&str, &str); 6] = [
        ("RANK", "5"),
        ("WORLD_SIZE", "8"),
        ("LOCAL_RANK", "1"),
        ("LOCAL_WORLD_SIZE", "4"),
        ("MASTER_ADDR", "10.0.0.1"),
        ("MASTER_PORT", "29500"),
    ];

    const SLURM: [(&str, &str); 7] = [
        ("SLURM_STEP_NUM_TASKS", "12"),
        ("SLURM_PROCID", "9"),
        ("SLURM_LOCALID", "1"),
        ("SLURM_NODEID", "2"),
        ("SLURM_STEP_TASKS_PER_NODE", "4(x2),3,1"),
        ("SLURM_STEP_NODELIST", "gpu[003-005,12]"),
        ("SLURM_JOB_ID", "40123"),
    ];

    #[test]
    fn started_alone_there_is_nothing_to_join() {
        assert_eq!(launch(&[]).unwrap(), None);
        // Inside sbatch but not under srun; and an interactive shell of srun.
        assert_eq!(launch(&[("SLURM_NTASKS", "8"), ("SLURM_PROCID", "0")]).unwrap(), None);
        assert_eq!(launch(&[("SLURM_STEP_NUM_TASKS", "1")]).unwrap(), None);
    }

    #[test]
    fn torchrun_tells_everything() {
        let mut variables = TORCHRUN.to_vec();
        let plain = launch(&variables).unwrap().unwrap();
        assert_eq!((plain.rank, plain.world_size), (5, 8));
        assert_eq!((plain.local_rank, plain.local_world_size), (1, 4));
        assert_eq!((&*plain.master_addr, plain.master_port), ("10.0.0.1", 29500));
        assert!(!plain.agent_store && !plain.is_local());
        variables.extend([
            ("TORCHELASTIC_USE_AGENT_STORE", "True"),
            ("TORCHELASTIC_RESTART_COUNT", "2"),
            ("TORCHELASTIC_RUN_ID", "r50"),
        ]);
        let elastic = launch(&variables).unwrap().unwrap();
        assert!(elastic.agent_store);
        assert_eq!((elastic.restarts, elastic.name.as_deref()), (2, Some("r50")));
        assert!(!elastic.owns(None), "no name was drawn yet");
    }

    #[test]
    fn one_process_needs_no_address() {
        let one = launch(&[("RANK", "0"), ("WORLD_SIZE", "1")]).unwrap().unwrap();
        assert_eq!((one.world_size, one.local_world_size), (1, 1));
    }

    #[test]
    fn slurm_tells_in_its_own_words() {
        let found = launch(&SLURM).unwrap().unwrap();
        assert_eq!((found.rank, found.world_size), (9, 12));
        assert_eq!((found.local_rank, found.local_world_size), (1, 3));
        assert_eq!((&*found.master_addr, found.master_port), ("gpu003", 20123));
        assert_eq!(found.job.as_deref(), Some("slurm 40123"));
        // Another step of the same job is no restart.
        assert!(!found.owns(Some("slurm 40123")) && !found.own_cores);
        let again = [&SLURM[..], &[("SLURM_RESTART_COUNT", "1"), ("SLURM_CPUS_PER_TASK", "12")]];
        let again = launch(&again.concat()).unwrap().unwrap();
        assert!(again.owns(Some("slurm 40123")) && !again.owns(Some("slurm 7")));
        assert!(again.own_cores);
        let given = [&SLURM[..], &[("MASTER_ADDR", "head"), ("MASTER_PORT", "5000")]].concat();
        let found = launch(&given).unwrap().unwrap();
        assert_eq!((&*found.master_addr, found.master_port), ("head", 5000));
    }

    #[test]
    fn short_forms_are_read() {
        let host = |list| first_host(list).unwrap();
        assert_eq!(host("a,b"), "a");
        assert_eq!(host("node7"), "node7");
        assert_eq!(host("n[9,11-12],x"), "n9");
        assert_eq!(host("login,n[1-2]"), "login");
        assert_eq!(host("rack[2-3]-n[05-06]"), "rack2-n05");
        assert_eq!(first_host("n[]"), None);
        assert_eq!(first_host(""), None);
        assert_eq!(tasks_on("8", 0), Some(8));
        assert_eq!(tasks_on("2(x3),1", 2), Some(2));
        assert_eq!(tasks_on("2(x3),1", 3), Some(1));
        assert_eq!(tasks_on("2(x3),1", 4), None);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let refusal = |variables: &[(&str, &str)]| launch(variables).unwrap_err().to_string();
        let without = |left_out: &str| {
            let kept = TORCHRUN.iter().filter(|(name, _)| *name != left_out);
            refusal(&kept.copied().collect::<Vec<_>>())
        };
        assert!(without("MASTER_PORT").starts_with("MASTER_PORT is not set"));
        assert!(without("RANK").starts_with("RANK is not set"));
        let with = |name: &'static str, value: &'static str| {
            let mut variables = TORCHRUN.to_vec();
            variables.retain(|(known, _)| *known != name);
            variables.push((name, value));
            refusal(&variables)
        };
        assert!(with("RANK", "8").starts_with("rank is 8, but it must be below 8"));
        assert!(with("LOCAL_RANK", "4").starts_with("local rank is 4"));
        assert!(with("WORLD_SIZE", "many").starts_with("WORLD_SIZE is \"many\""));
        assert!(with("MASTER_PORT", "70000").starts_with("MASTER_PORT is \"70000\""));
    }
}
