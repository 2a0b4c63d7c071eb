# Makes the tables beside it: Rscript reference.R (R 4.2.2; clubSandwich 0.5.8, lmerTest 3.1-3, metafor 3.8-1). Each voxel is analysed
# alone, by what R has, with the maps that have it.
source("../marginal.R")
suppressMessages({library(lmerTest); library(metafor)})
# CR2 of clubSandwich, with the degrees of freedom of a voxel where they are fewer; see `voxel_eta` of marginal.R, which takes longer
robust_t <- function(X, y, cluster, w, covariance) {
  white <- inverse_root(covariance); X <- white %*% X; y <- drop(white %*% y); w <- matrix(w, 1)
  found <- robust(X, y, cluster, w)
  S <- residual_maker(X); a <- w %*% solve(crossprod(X), t(X)); people <- unique(cluster)
  G <- t(sapply(people, function(k) { o <- cluster == k; drop(a[, o, drop = FALSE] %*% inverse_root(S[o, o, drop = FALSE]) %*% S[o, , drop = FALSE]) }))
  G <- G / sqrt(sum(G^2)); B <- outer(cluster, people, "==") * 1
  share <- drop(crossprod(B, colSums(G^2))); together <- 2 * t(B) %*% crossprod(G)^2 %*% B; diag(together) <- diag(together) / 3
  expected <- rowSums(G^2); carries <- expected > 1e-10 * max(expected)
  s <- ifelse(carries, drop(G %*% y)^2 / ifelse(carries, expected, 1), 0)
  pairs <- tcrossprod(G)  # participants who all count the same: the design's are exact
  if (diff(range(expected)) < 1e-8 * max(expected) && diff(range(pairs[row(pairs) != col(pairs)])) < 1e-8 * max(expected))
    return(list(estimate = found$Est, se = found$SE, dof = found$df))
  own <- 2 * (sum(share * s)^2 - 2 / 3 * sum((share * s)^2)) / drop(s %*% together %*% s)
  list(estimate = found$Est, se = found$SE, dof = min(max(own, 1), found$df))
}
set.seed(16)
V <- 500; n <- 18; K <- 3; RATIO <- 0.7
people <- data.frame(participant = sprintf("%02d", 1:n), group = rep(c("a", "b"), c(10, 8)))
maps <- merge(people, data.frame(session = 1:K)); maps <- maps[order(maps$participant, maps$session), ]
maps <- maps[!(maps$participant %in% c("04", "13") & maps$session == 3), ]
maps$variance <- round(runif(nrow(maps), 0.2, 0.6), 2)
owner <- as.integer(maps$participant)
for (v in 1:V) repeat {
  there <- (runif(n) < runif(1, 0.72, 1))[owner] & runif(nrow(maps)) < runif(1, 0.85, 1)
  if (mean(there) < 0.6 || mean(there) > 0.95) next
  y <- rnorm(n)[owner] + 0.8 * rnorm(nrow(maps)) + 0.3 * maps$session + 0.5 * (maps$group == "a"); y[!there] <- NA
  maps[[paste0("v", v)]] <- round(y, 2); break
}
write.table(maps, "maps.tsv", sep = "\t", row.names = FALSE, quote = FALSE, na = "")
rows <- list()
add <- function(v, strategy, question, estimate, se, dof) rows[[length(rows) + 1]] <<- data.frame(voxel = v, strategy, question, estimate, se, dof)
line <- function(v, strategy, question, model) { s <- coef(summary(model))[1, ]; add(v, strategy, question, s[1], s[2], model$df.residual) }
exact <- lmerControl(optCtrl = list(xtol_abs = 1e-12, ftol_abs = 1e-14))
over_sessions <- list(mean = rep(1 / 3, 3), difference = c(-1, 0, 1))
for (v in 1:V) {
  d <- maps[!is.na(maps[[paste0("v", v)]]), ]; d$y <- d[[paste0("v", v)]]
  d$s <- factor(d$session, 1:3); X <- model.matrix(~ 0 + s, d); d$owner <- factor(d$participant)
  means <- aggregate(y ~ participant + group, d, mean)
  line(v, "summary-statistics", "mean", lm(y ~ 1, means))
  wide <- merge(d[d$session == 1, c("participant", "y")], d[d$session == 3, c("participant", "y")], by = "participant")
  line(v, "summary-statistics", "difference", lm(y.y - y.x ~ 1, wide))
  welch <- t.test(y ~ group, means); add(v, "summary-statistics", "groups", -diff(welch$estimate), welch$stderr, welch$parameter)
  pooled <- lm(y ~ 0 + s, d); w <- over_sessions$mean
  add(v, "session-model", "mean", sum(w * coef(pooled)), sqrt(drop(w %*% vcov(pooled) %*% w)), pooled$df.residual)
  within <- lm(y ~ s + owner, d); add(v, "session-model", "difference", coef(within)[["s3"]], sqrt(vcov(within)["s3", "s3"]), within$df.residual)
  random <- suppressMessages(lmer(y ~ 0 + s + (1 | owner), d, control = exact))
  for (q in names(over_sessions)) {
    found <- contest1D(random, over_sessions[[q]])
    add(v, "mixed", q, found$Estimate, found$`Std. Error`, if (isSingular(random)) NA else found$df)
    found <- robust_t(X, d$y, d$participant, over_sessions[[q]], diag(nrow(d)) + RATIO * membership(d))
    add(v, "marginal", q, found$estimate, found$se, found$dof)
  }
  weights <- aggregate(cbind(y, variance, one = 1) ~ participant, transform(d, one = 1), sum)
  meta <- rma(weights$y / weights$one, weights$variance / weights$one^2, method = "REML", test = "knha", control = list(threshold = 1e-12, maxiter = 1000))
  add(v, "meta", "mean", coef(meta), meta$se, nrow(weights) - 1)
}
table <- do.call(rbind, rows)
table[4:6] <- lapply(table[4:6], signif, 9)
write.table(table, gzfile("answers.tsv.gz"), sep = "\t", row.names = FALSE, quote = FALSE, na = "")
