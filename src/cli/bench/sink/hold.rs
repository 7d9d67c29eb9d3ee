//! A receiver that takes requests and never answers.
//!
//! What it reads is forgotten at once: it holds connections and nothing else.

use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections at once. More than these hang too, in the kernel's queue.
const MOST: usize = 1_024;

/// Takes connections until there is an error.
pub(super) async fn hold(listener: TcpListener) -> anyhow::Result<()> {
    let room = Arc::new(Semaphore::new(MOST));
    loop {
        let permit = Arc::clone(&room).acquire_owned().await?;
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            swallow(stream).await;
            drop(permit);
        });
    }
}

/// Reads until the other side has enough of it.
async fn swallow(mut stream: TcpStream) {
    let mut buffer = [0; 4_096];
    while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn all_is_read_and_nothing_is_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let holding = tokio::spawn(hold(listener));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&[b'x'; 4_000_000]).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.is_empty() && !holding.is_finished());
    }
}
