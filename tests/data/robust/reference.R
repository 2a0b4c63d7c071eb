# Makes the tables beside it: Rscript reference.R [folder to write to]
# MASS's rlm for one group, where all leverages are equal; for groups and a covariate the same equations by lm.wfit and
# hatvalues, with the standard error of Street, Carroll & Ruppert (1988) and DuMouchel & O'Brien (1989) written out;
# trimmed means by mean(trim =) and winsorised variances.
suppressMessages(library(MASS))
for (folder in commandArgs(TRUE)) setwd(folder)
set.seed(16)
n <- 18
people <- data.frame(group = rep(c(-1, 1), c(7, 11)), age = round(rnorm(n), 3))
values <- sapply(1:6, function(v) round(rnorm(n, 0.4) + 0.5 * people$group, 4))
values[3, 2] <- 9; values[c(1, 12), 3] <- c(-7, 12); values[, 4] <- round(rt(n, 2), 4); values[18, 5] <- 40
values[1:4, 6] <- values[1:4, 6] + 6
colnames(values) <- paste0("v", 1:6)
write.table(cbind(people, values), "maps.tsv", sep = "\t", row.names = FALSE, quote = FALSE)
weigh <- list(huber = function(u) psi.huber(u, k = 1.345), bisquare = function(u) psi.bisquare(u, c = 4.685))
slope <- list(huber = function(u) psi.huber(u, k = 1.345, deriv = 1), bisquare = function(u) psi.bisquare(u, c = 4.685, deriv = 1))
scaled <- function(x, y, beta) {
  h <- hat(x, intercept = FALSE)
  r <- drop(y - x %*% beta) / sqrt(1 - h)
  p <- ncol(x)
  s <- median(sort(abs(r))[p:length(r)]) / 0.6745
  list(u = r / s, s = s, h = h)
}
fit <- function(kind, x, y, beta) {
  for (step in 1:2000) {
    new <- lm.wfit(x, y, weigh[[kind]](scaled(x, y, beta)$u))$coefficients
    if (max(abs(new - beta)) < 1e-13) break
    beta <- new
  }
  new
}
error <- function(kind, x, y, beta, a) {
  found <- scaled(x, y, beta)
  n <- nrow(x); p <- ncol(x)
  psi <- found$u * weigh[[kind]](found$u)
  m <- mean(slope[[kind]](found$u))
  s2 <- sum((1 - found$h) * psi^2) / (n - p) * ((1 + p / n * (1 - m) / m) * found$s / m)^2
  ols <- sum(lm.fit(x, y)$residuals^2) / (n - p)
  s2 <- max(s2, (p^2 * ols + n * s2) / (p^2 + n))
  c(se = sqrt(s2 * drop(t(a) %*% solve(crossprod(x)) %*% a)), dof = n * m - p)
}
designs <- list(mean = list(cbind(rep(1, n)), 1), groups = list(cbind(1, people$group), c(0, 2)),
  age = list(cbind(1, people$age), c(0, 1)))
rows <- list(); weights <- list()
for (name in names(designs)) for (v in colnames(values)) {
  x <- designs[[name]][[1]]; a <- designs[[name]][[2]]; y <- values[, v]
  huber <- fit("huber", x, y, lm.fit(x, y)$coefficients)
  for (kind in names(weigh)) {
    beta <- if (kind == "huber") huber else fit(kind, x, y, huber)
    rows[[length(rows) + 1]] <- data.frame(kind, design = name, voxel = v, estimate = sum(a * beta), t(error(kind, x, y, beta, a)))
    if (name == "mean") {
      psi <- if (kind == "huber") psi.huber else psi.bisquare
      of_mass <- rlm(x, y, psi = psi, init = huber, maxit = 2000, acc = 1e-14)
      rows[[length(rows) + 1]] <- data.frame(kind = paste0("rlm_", kind), design = name, voxel = v,
        estimate = unname(of_mass$coefficients), se = NA, dof = NA)
      weights[[length(weights) + 1]] <- data.frame(kind, voxel = v, participant = 1:n, weight = of_mass$w)
    }
  }
}
winsorised <- function(y) {
  g <- floor(0.2 * length(y)); o <- sort(y); h <- length(y) - 2 * g
  w <- pmin(pmax(o, o[g + 1]), o[length(o) - g])
  list(mean = mean(y, trim = 0.2), v = (length(y) - 1) * var(w) / (h * (h - 1)), h = h)
}
for (v in colnames(values)) {
  all <- winsorised(values[, v])
  rows[[length(rows) + 1]] <- data.frame(kind = "trimmed", design = "mean", voxel = v, estimate = all$mean, se = sqrt(all$v), dof = all$h - 1)
  a <- winsorised(values[people$group == -1, v]); b <- winsorised(values[people$group == 1, v])
  rows[[length(rows) + 1]] <- data.frame(kind = "trimmed", design = "groups", voxel = v, estimate = b$mean - a$mean,
    se = sqrt(a$v + b$v), dof = (a$v + b$v)^2 / (a$v^2 / (a$h - 1) + b$v^2 / (b$h - 1)))
}
write.table(format(do.call(rbind, rows), digits = 12, trim = TRUE), "answers.tsv", sep = "\t", row.names = FALSE, quote = FALSE)
write.table(format(do.call(rbind, weights), digits = 12, trim = TRUE), "weights.tsv", sep = "\t", row.names = FALSE, quote = FALSE)
