// Keeping an answer that never ends: opened again when it breaks, at growing intervals.
import { ApiError, Unreachable } from "./client.js";

const FIRST_S = 0.5;
const MOST_S = 15;

/**
 * Runs `open` again and again until it is stopped.
 *
 * `open(signal, worked)` returns or throws when the answer is over; it calls `worked` once something came.
 * `lost(error, seconds)` is told of every end and when the next try comes.
 */
export class Kept {
  #open;
  #lost;
  #stopping = null;
  #wake = () => {};

  constructor(open, lost) {
    this.#open = open;
    this.#lost = lost;
  }

  get runs() {
    return this.#stopping !== null;
  }

  start() {
    if (this.#stopping) return;
    this.#stopping = new AbortController();
    this.#run(this.#stopping.signal);
  }

  stop() {
    this.#stopping?.abort();
    this.#stopping = null;
    this.#wake();
  }

  /** Ends a wait for the next try. */
  hurry() {
    this.#wake();
  }

  async #run(stopped) {
    let wait = FIRST_S;
    while (!stopped.aborted) {
      let error = new Unreachable("visaged closed the connection");
      try {
        await this.#open(stopped, () => (wait = FIRST_S));
      } catch (thrown) {
        error = thrown instanceof TypeError ? new Unreachable("the connection broke") : thrown;
      }
      if (stopped.aborted) return;
      if (!(error instanceof ApiError || error instanceof Unreachable)) console.error(error);
      const seconds = Math.max(wait, error.retryAfter ?? 0) * (0.9 + 0.2 * Math.random());
      this.#lost(error, seconds);
      wait = Math.min(wait * 2, MOST_S);
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, seconds * 1000);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }
}

/** The chunks of a body; throws `Unreachable` after some seconds without any. */
export async function* chunks(response, quietS) {
  const reader = response.body.getReader();
  try {
    for (;;) {
      let timer;
      const silence = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Unreachable(`nothing came for ${quietS} s`)), quietS * 1000);
      });
      const { done, value } = await Promise.race([reader.read(), silence]).finally(() => clearTimeout(timer));
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
