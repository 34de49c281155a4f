// Requests to the HTTP API. Addresses are relative to the page, so that it works below any path of a proxy.
import { setServerTime } from "../ui/times.js";

/** An answer that is an error: its words, and its status. */
export class ApiError extends Error {
  constructor(status, detail, retryAfter) {
    super(detail);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** No answer at all. */
export class Unreachable extends Error {}

/**
 * Sends a request.
 * @returns {Promise<Response>} The answer, if it is a success.
 * @throws {ApiError|Unreachable} A DOMException (AbortError) where `options.signal` says so.
 */
export async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable("no answer from visaged");
  }
  setServerTime(response.headers.get("Date"));
  if (response.ok) return response;
  let detail = `${response.status} ${response.statusText}`.trim();
  try {
    detail = (await response.json()).detail ?? detail;
  } catch {
    // not a problem document, perhaps a proxy's page
  }
  throw new ApiError(response.status, detail, Number(response.headers.get("Retry-After")) || null);
}

/** The JSON of an answer; null if it has none. */
export async function json(path, options) {
  const response = await request(path, options);
  return response.status === 204 ? null : response.json();
}

/** A query for a path, from pairs; empty values are left out. */
export function query(path, pairs) {
  const parameters = new URLSearchParams(pairs.filter(([, value]) => value !== null && value !== undefined && value !== ""));
  return parameters.size ? `${path}?${parameters}` : path;
}
