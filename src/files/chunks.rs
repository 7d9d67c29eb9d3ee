//! A local file as a stream of pieces.
//!
//! Must not know: what the file is for.

use std::fs::File;
use std::io::{self, Read};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};

/// Large enough that the hop to a blocking thread costs little, small enough for many streams.
const CHUNK_BYTES: u64 = 256 * 1024;

/// `length` bytes of `file` from where it stands. A file that turns out shorter is an error, not a
/// short stream: the reader has been promised a length.
pub fn chunks(file: File, length: u64) -> BoxStream<'static, io::Result<Bytes>> {
    stream::try_unfold((file, length), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let read = tokio::task::spawn_blocking(move || {
            let wanted = left.min(CHUNK_BYTES);
            let mut chunk = Vec::with_capacity(usize::try_from(wanted).unwrap_or_default());
            (&mut file).take(wanted).read_to_end(&mut chunk)?;
            if chunk.is_empty() {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            Ok((chunk, file))
        });
        let (chunk, file) = read.await.map_err(io::Error::other)??;
        let left = left - chunk.len() as u64;
        Ok(Some((Bytes::from(chunk), (file, left))))
    })
    .boxed()
}
