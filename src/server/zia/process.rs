//! Starts and ends a process of the bridge.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::control::Control;
use super::message::Order;
use super::output;

/// Time for interrupted connections to end, and for modules to end.
const STOP_MAX: Duration = Duration::from_secs(5);

/// Time for the output that the process printed before its end. Programs that modules started may keep the pipes open longer.
const OUTPUT_MAX: Duration = Duration::from_secs(1);

pub(super) struct Process {
    child: Child,
    pub(super) control: Arc<Control>,
    outputs: [JoinHandle<()>; 2],
}

impl Process {
    pub(super) fn start(program: &Path) -> io::Result<Process> {
        let (control, other) = Control::pair()?;
        let mut child = Command::new(program)
            .stdin(Stdio::from(other))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pipes = || io::Error::other("the process has no pipes");
        let stdout = child.stdout.take().ok_or_else(pipes)?;
        let stderr = child.stderr.take().ok_or_else(pipes)?;
        let outputs = [tokio::spawn(output::log(stdout)), tokio::spawn(output::log(stderr))];
        Ok(Process { child, control: Arc::new(control), outputs })
    }

    /// Waits for the process to end; kills it after `time`. Returns its status as text.
    pub(super) async fn ended(mut self, time: Duration) -> String {
        let status = match timeout(time, self.child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                let _ = self.child.start_kill();
                self.child.wait().await
            }
        };
        for output in &mut self.outputs {
            if timeout(OUTPUT_MAX, &mut *output).await.is_err() {
                output.abort();
            }
        }
        status.map_or_else(|error| format!("cannot be waited for: {error}"), |status| status.to_string())
    }

    /// Orders the process to stop, and waits. Its connections may continue for `time`.
    pub(super) async fn stop(self, time: Duration) {
        // If this fails, the process has already ended.
        let _ = self.control.send(&Order::stop(time)).await;
        let status = self.ended(time + STOP_MAX).await;
        tracing::debug!("the bridge for zia modules ended: {status}");
    }
}
