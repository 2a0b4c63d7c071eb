# Makes the tables beside it: Rscript reference.R
# Bayes factors of BayesFactor (t tests; regression on one covariate), and two one-sided tests by t.test, which is what
# TOSTER computes, with the 1 - 2 alpha interval.
suppressMessages(library(BayesFactor))
rows <- list()
add <- function(kind, t, n1, n2, scale, found, n, dof) {
  # BayesFactor integrates R's noncentral t, and says how far it may be off; Rouder's integral over g is exact to 1e-10
  given <- function(g) (1 + n * scale^2 * g)^-0.5 * (2 * pi)^-0.5 * g^-1.5 * exp(-1 / (2 * g)) *
    ((1 + t^2 / ((1 + n * scale^2 * g) * dof)) / (1 + t^2 / dof))^(-(dof + 1) / 2)
  over_log_g <- function(s) given(exp(s)) * exp(s)
  exact <- log(integrate(over_log_g, -8, 5, rel.tol = 1e-12, subdivisions = 1e4)$value +
    integrate(over_log_g, 5, 80, rel.tol = 1e-12, subdivisions = 1e4)$value)
  rows[[length(rows) + 1]] <<- data.frame(kind, t, n1, n2, scale, bayes_factor = found$bf, error = found$properror, rouder = exact)
}
for (scale in c(0.5, sqrt(2) / 2, 1, sqrt(2))) for (t in c(0, 0.3, 1, -1.7, 2.5, 4, 8, 15)) {
  for (n in c(3, 6, 12, 20, 40, 200)) add("one", t, n, 0, scale, ttest.tstat(t, n, rscale = scale), n, n - 1)
  for (n in list(c(3, 20), c(12, 12), c(40, 25)))
    add("two", t, n[1], n[2], scale, ttest.tstat(t, n[1], n[2], rscale = scale), prod(n) / sum(n), sum(n) - 2)
  # the same scale for the effect of two standard deviations of the covariate
  for (n in c(8, 20, 60))
    add("covariate", t, n, 0, scale, linearReg.R2stat(n, 1, t^2 / (t^2 + n - 2), rscale = scale / 2), n / 4, n - 2)
}
write.table(format(do.call(rbind, rows), digits = 15, trim = TRUE), "bayes_factors.tsv", sep = "\t", row.names = FALSE, quote = FALSE)

set.seed(11)
n <- c(a = 7, b = 12)
spread <- c(0.1, 0.2, 0.3, 0.5, 1, 2)
values <- sapply(spread, function(s) round(rep(c(s, 1.5 * s), n) * rnorm(19) + runif(1, -0.3, 0.3), 4))
colnames(values) <- paste0("v", seq_along(spread))
group <- rep(names(n), n)
write.table(cbind(group, as.data.frame(values)), "values.tsv", sep = "\t", row.names = FALSE, quote = FALSE)
tost <- function(case, voxel, bound, alpha, ...) {
  interval <- t.test(..., conf.level = 1 - 2 * alpha)$conf.int
  data.frame(case, voxel, bound, alpha, lower = interval[1], upper = interval[2],
    p = max(t.test(..., mu = -bound, alternative = "greater")$p.value, t.test(..., mu = bound, alternative = "less")$p.value))
}
rows <- list()
for (v in colnames(values)) for (bound in c(0.1, 0.4, 1)) for (alpha in c(0.05, 0.01)) {
  a <- values[group == "a", v]; b <- values[group == "b", v]
  rows[[length(rows) + 1]] <- tost("one", v, bound, alpha, b)
  rows[[length(rows) + 1]] <- tost("pooled", v, bound, alpha, b, a, var.equal = TRUE)
  rows[[length(rows) + 1]] <- tost("welch", v, bound, alpha, b, a)
}
write.table(format(do.call(rbind, rows), digits = 15, trim = TRUE), "equivalence.tsv", sep = "\t", row.names = FALSE, quote = FALSE)
