//! The server.

mod routes;

use std::io::{ErrorKind, IsTerminal};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use anyhow::{Result, anyhow, bail, ensure};
use clap::Args;
use data::files::image_files;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use self::routes::{Site, router};
use crate::guard::Guard;
use crate::queue::queue;
use crate::{App, Limits, Page, Pictures};

/// Most pictures that a page lists; more make it slow, and nobody looks through them.
const LISTED: usize = 2000;

/// Where and what a playground serves.
#[derive(Debug, Clone, Args)]
pub struct ServeFlags {
    /// Pictures to choose from: files, folders (with all in them), or quoted patterns.
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub images: Vec<PathBuf>,
    /// Port to listen on, 0 for a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub port: u16,
    /// Address to listen on; 0.0.0.0 lets everyone in who can reach this computer
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub listen: IpAddr,
    /// Show the page in the browser.
    #[arg(long)]
    pub open: bool,
    /// Largest file that can be uploaded, in megabytes
    #[arg(long, value_name = "MB", default_value_t = 32)]
    pub max_upload: u32,
    /// Largest picture that is taken, in megapixels
    #[arg(long, value_name = "MP", default_value_t = 64)]
    pub max_megapixels: u32,
    /// Host name by which a proxy calls this server, besides addresses and localhost; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub allow_host: Vec<String>,
    /// Origin of pages that may show this one in a frame, as `https://example.org`; may be repeated.
    #[arg(long, value_name = "ORIGIN")]
    pub allow_frame: Vec<String>,
}

impl ServeFlags {
    fn guard(&self) -> Result<Guard> {
        for origin in &self.allow_frame {
            let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            let plain = |letter: char| letter.is_ascii_alphanumeric() || ".-:*[]".contains(letter);
            ensure!(
                rest.is_some_and(|rest| !rest.is_empty() && rest.chars().all(plain)),
                "allow-frame is {origin:?}, but it must be as https://example.org"
            );
        }
        Ok(Guard { hosts: self.allow_host.clone(), frames: self.allow_frame.clone() })
    }

    fn pictures(&self, instance: u64) -> Result<Pictures> {
        let files = match self.images.is_empty() {
            true => Vec::new(),
            false => image_files(&self.images)?,
        };
        let (all, mut files) = (files.len(), files);
        if all > LISTED {
            eprintln!("note: the first {LISTED} of {all} pictures can be chosen");
            files.truncate(LISTED);
        }
        let limits = Limits {
            upload: u64::from(self.max_upload) * 1_000_000,
            pixels: u64::from(self.max_megapixels) * 1_000_000,
        };
        // A page that an earlier server left open sends what it uploaded there again.
        Ok(Pictures::new(files, instance, limits))
    }
}

/// Serves `page` until the program is ended, asking `app` on this thread.
///
/// # Errors
/// Those of [`Server::bind`].
pub fn serve(flags: &ServeFlags, page: Page, app: &mut dyn App) -> Result<()> {
    let server = Server::bind(flags, page)?;
    tell(server.address(), flags.open);
    server.run(app)
}

/// A server that listens, but answers nobody yet.
#[derive(Debug)]
pub struct Server {
    page: Page,
    pictures: Arc<Pictures>,
    guard: Arc<Guard>,
    instance: u64,
    runtime: Runtime,
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Listens where `flags` say.
    ///
    /// # Errors
    /// Pictures that cannot be listed, an address that cannot be listened on.
    pub fn bind(flags: &ServeFlags, page: Page) -> Result<Self> {
        let instance = instance();
        let pictures = Arc::new(flags.pictures(instance)?);
        let guard = Arc::new(flags.guard()?);
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let wanted = SocketAddr::new(flags.listen, flags.port);
        let listener =
            runtime.block_on(TcpListener::bind(wanted)).map_err(|error| match error.kind() {
                ErrorKind::AddrInUse => {
                    anyhow!("port {} is in use; --port 0 takes a free one", wanted.port())
                }
                _ => anyhow!("cannot listen on {wanted}: {error}"),
            })?;
        let address = listener.local_addr()?;
        Ok(Self { page, pictures, guard, instance, runtime, listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers, asking `app` on this thread, until the program is ended.
    ///
    /// # Errors
    /// The system refuses a thread, or ends the listening.
    pub fn run(self, app: &mut dyn App) -> Result<()> {
        let Self { page, pictures, guard, instance, runtime, listener, .. } = self;
        let (queue, worker) = queue();
        let site = Site { page, about: app.about(), pictures, queue, instance };
        let server = thread::Builder::new().name("playground".to_owned()).spawn(move || {
            let router = router(Arc::new(site), guard);
            runtime.block_on(async { axum::serve(listener, router).await })
        })?;
        worker.work(app);
        match server.join() {
            Ok(ended) => Ok(ended?),
            Err(_) => bail!("the server ended by a fault of its own"),
        }
    }
}

/// A number that no other server of this computer had lately.
fn instance() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    // Below what a page's numbers hold exactly (2^53).
    now.map_or(1, |now| now.as_millis() as u64) << 8
}

fn tell(address: SocketAddr, open: bool) {
    // No browser goes to an address that stands for all of them.
    let shown = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => {
            SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()))
        }
        IpAddr::V6(ip) if ip.is_unspecified() => {
            SocketAddr::from((Ipv6Addr::LOCALHOST, address.port()))
        }
        _ => address,
    };
    let url = format!("http://{shown}/");
    println!("{url}");
    if !address.ip().is_loopback() {
        eprintln!("note: everyone who can reach this computer can use the page");
    }
    if std::io::stdout().is_terminal() {
        eprintln!("Ctrl-C ends it.");
    }
    if open && let Err(error) = open::that_detached(&url) {
        eprintln!("note: no browser could be started ({error}): open {url} in one");
    }
}
