/**
 * prom-client with the habits that make alerts work: one registry per app, every label pair of a
 * counter at 0 from the start (`increase()` misses a series that is born at 1), and gauges that are
 * read when scraped, never remembered from the last event.
 */
import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from 'prom-client'

/** For each label its known values, e.g. `{ queue: ['backup'], outcome: ['succeeded', 'failed'] }`. */
export type LabelValues<Label extends string> = Readonly<Record<Label, readonly string[]>>
export type Labels<Label extends string> = Readonly<Record<Label, string>>

export interface CounterHandle<Label extends string> {
  add(labels: Labels<Label>, value?: number): void
}
export interface HistogramHandle<Label extends string> {
  observe(labels: Labels<Label>, value: number): void
}

export interface Metrics {
  readonly registry: Registry
  /** `name` without the `tidemark_` prefix, with `_total`. */
  counter<Label extends string>(name: string, help: string, labels: LabelValues<Label>): CounterHandle<Label>
  /** `name` without the `tidemark_` prefix, with its base unit. */
  histogram<Label extends string>(
    name: string,
    help: string,
    labels: LabelValues<Label>,
    buckets: readonly number[],
  ): HistogramHandle<Label>
  /** `read` is called at each scrape; when it fails, the series are left out of that scrape. */
  gauge<Label extends string>(
    name: string,
    help: string,
    labelNames: readonly Label[],
    read: () => Promise<readonly { labels: Labels<Label>; value: number }[]>,
  ): void
}

export function createMetrics(): Metrics {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  return {
    registry,
    counter(name, help, labels) {
      const metric = new Counter({
        name: `tidemark_${name}`,
        help,
        labelNames: Object.keys(labels),
        registers: [registry],
      })
      for (const combination of combinations(labels)) metric.inc(combination, 0)
      return { add: (given, value = 1) => metric.inc({ ...given }, value) }
    },
    histogram(name, help, labels, buckets) {
      const metric = new Histogram({
        name: `tidemark_${name}`,
        help,
        labelNames: Object.keys(labels),
        buckets: [...buckets],
        registers: [registry],
      })
      for (const combination of combinations(labels)) metric.zero(combination)
      return { observe: (given, value) => metric.observe({ ...given }, value) }
    },
    gauge(name, help, labelNames, read) {
      const metric: Gauge = new Gauge({
        name: `tidemark_${name}`,
        help,
        labelNames: [...labelNames],
        registers: [registry],
        async collect() {
          metric.reset()
          try {
            for (const { labels, value } of await read()) metric.set({ ...labels }, value)
          } catch {
            // Absent series say "unknown"; a stale value would say "fine".
          }
        },
      })
    },
  }
}

function combinations(labels: Readonly<Record<string, readonly string[]>>): Record<string, string>[] {
  return Object.entries(labels).reduce<Record<string, string>[]>(
    (rows, [label, values]) => rows.flatMap((row) => values.map((value) => ({ ...row, [label]: value }))),
    [{}],
  )
}
