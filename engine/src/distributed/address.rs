//! By which address the other machines reach this one.

use std::io;
use std::net::{ToSocketAddrs, UdpSocket};

/// The address of the network interface that leads to `host`: nothing is sent, the system is only
/// asked for the way. Other than the machine's name, which often resolves to its loopback address.
///
/// # Errors
/// A name that cannot be resolved, or no way there.
pub(super) fn address_towards(host: &str, port: u16) -> io::Result<String> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for target in (host, port).to_socket_addrs()? {
        let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let way = UdpSocket::bind(any).and_then(|socket| {
            socket.connect(target)?;
            socket.local_addr()
        });
        match way {
            Ok(address) => return Ok(address.ip().to_string()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What this machine is called, for messages.
pub(super) fn host_name() -> String {
    gethostname::gethostname().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_reached_by_its_own_address() {
        assert_eq!(address_towards("127.0.0.1", 9).unwrap(), "127.0.0.1");
        assert!(address_towards("no.such.host.invalid", 9).is_err());
    }
}
