# The marginal strategy written in R, for the scripts beside the tables: exchangeable working covariances estimated over
# all voxels, and clubSandwich's CR2 on maps and design multiplied by the inverse symmetric root of that covariance.
# Several contrasts have the covariance of one times any between them, which cancels; `values` has a matrix for each voxel.
suppressMessages({library(clubSandwich); library(nlme)})

membership <- function(d) outer(d$participant, d$participant, "==") * 1
full_rank <- function(X) {  # an orthonormal basis
  size <- sqrt(colSums(X^2)); parts <- svd(X[, size > 1e-10 * max(size)] %*% diag(1 / size[size > 1e-10 * max(size)])); parts$u[, parts$d > 1e-9 * parts$d[1]]
}
residual_maker <- function(X) diag(nrow(X)) - X %*% solve(crossprod(X), t(X))

score <- function(ratio, X, values, J) {  # derivative of the profile REML deviance, summed over voxels
  inverse <- solve(diag(nrow(X)) + ratio * J)
  P <- inverse - inverse %*% X %*% solve(crossprod(X, inverse %*% X), crossprod(X, inverse)); trace <- sum(P * J)
  sum(sapply(values, function(Y) { PY <- P %*% Y
    ncol(Y) * trace - (nrow(X) - ncol(X)) * sum(diag(solve(crossprod(Y, PY), crossprod(PY, J %*% PY)))) }))
}

ratio_of <- function(X, values, d) {
  J <- membership(d)
  if (score(0, X, values, J) >= 0) return(0)
  ratio <- uniroot(score, c(0, 100), X = X, values = values, J = J, tol = 1e-13)$root
  likelihood <- function(rho) sum(sapply(values, function(y) { d$y <- y[, 1]; d$X <- X
    as.numeric(logLik(gls(y ~ 0 + X, data = d, correlation = corCompSymm(rho, ~ 1 | participant, fixed = TRUE), method = "REML"))) }))
  if (ncol(values[[1]]) == 1)  # the same by nlme
    stopifnot(abs(optimize(likelihood, c(0, 0.99), maximum = TRUE, tol = 1e-7)$maximum - ratio / (1 + ratio)) < 1e-4)
  ratio
}

working <- function(X, values, d, by_group) {  # the covariance of all maps of one contrast
  J <- membership(d)
  if (!by_group) return(diag(nrow(d)) + ratio_of(full_rank(X), values, d) * J)
  parts <- lapply(split(seq_len(nrow(d)), d$group), function(rows) {
    own <- d[rows, ]; own_X <- full_rank(X[rows, ]); own_values <- lapply(values, function(Y) Y[rows, , drop = FALSE]); R <- ncol(values[[1]])
    ratio <- ratio_of(own_X, own_values, own); S <- residual_maker(own_X)
    expected <- S %*% (diag(nrow(own)) + ratio * membership(own)) %*% S; total <- sum(diag(expected)); dof <- total^2 / sum(expected^2)
    # of the residual squares, about a chi-square (of several, a Wishart matrix) whose logarithm is too small on average
    logs <- mean(sapply(own_values, function(Y) log(det(crossprod(Y, S %*% Y))))) / R
    c(ratio = ratio, log_variance = logs - log(total) - mean(digamma((dof - seq_len(R) + 1) / 2)) + log(dof / 2))
  })
  variance <- exp(sapply(parts, `[[`, "log_variance")[d$group]); ratio <- sapply(parts, `[[`, "ratio")[d$group]
  diag(variance) + variance * ratio * J
}
inverse_root <- function(M) {
  e <- eigen((M + t(M)) / 2); kept <- e$values > 1e-10 * max(e$values)
  e$vectors[, kept] %*% (t(e$vectors[, kept]) / sqrt(e$values[kept]))
}

# Degrees of freedom where participant k varies s[k] times as much as the working covariance says, s told by the scores
# Scores of several contrasts are made orthonormal first.
voxel_eta <- function(X, cluster, weights, n_contrasts) {
  S <- residual_maker(X); q <- nrow(weights); people <- unique(cluster); w <- weights %*% solve(crossprod(X), t(X))
  G <- lapply(people, function(k) { o <- cluster == k; w[, o, drop = FALSE] %*% inverse_root(S[o, o]) %*% S[o, ] })
  root <- inverse_root(Reduce(`+`, lapply(G, tcrossprod))); G <- lapply(G, function(g) root %*% g)
  expected <- sapply(G, function(g) sum(g^2)); inflation <- 1 + 2 * sapply(G, function(g) sum(tcrossprod(g)^2)) / expected^2
  columns <- lapply(people, function(k) which(cluster == k))
  share <- sapply(columns, function(o) sum(sapply(G, function(g) sum(g[, o]^2)))) / q
  # for maps m of k and p of l, constraints s and t: w = sum over participants i of g[s, m] g[t, p]
  together <- outer(seq_along(people), seq_along(people), Vectorize(function(k, l) {
    W <- Reduce(`+`, lapply(G, function(g) outer(g[, columns[[k]], drop = FALSE], g[, columns[[l]], drop = FALSE])))
    sum(W * W) + sum(W * aperm(W, c(3, 2, 1, 4)))
  }))
  diag(together) <- diag(together) / inflation
  function(y) {
    scores <- array(sapply(G, function(g) g %*% y), c(q / n_contrasts, n_contrasts, length(G)))
    if (n_contrasts > 1) scores[] <- aperm(array(qr.Q(qr(matrix(aperm(scores, c(1, 3, 2)), ncol = n_contrasts))), dim(scores)[c(1, 3, 2)]), c(1, 3, 2))
    s <- apply(scores^2, 3, sum) / expected
    q * (q + 1) * (sum(share * s)^2 - sum(share^2 * (1 - 1 / inflation) * s^2)) / drop(s %*% together %*% s)
  }
}

# Q rows of weights tested (F), or one estimated, at every voxel
marginal <- function(X, values, cluster, weights, covariance) {
  several <- diag(ncol(values[[1]])); cluster <- rep(cluster, ncol(several)); q <- nrow(weights)
  white <- kronecker(several, inverse_root(covariance)); X <- white %*% kronecker(several, X)
  eta_of <- voxel_eta(X, cluster, weights, ncol(several))
  do.call(rbind, lapply(seq_along(values), function(v) {
    y <- drop(white %*% as.vector(values[[v]])); own <- eta_of(y)
    if (q == 1) {
      found <- robust(X, y, cluster, weights)
      return(data.frame(voxel = v, estimate = found$Est, se = found$SE, dof = min(max(own, 1), found$df)))
    }
    found <- htz(X, y, cluster, weights); eta <- found$df_denom + q - 1; own <- min(max(own, min(q, eta)), eta)
    f <- found$Fstat * (eta * q) / found$df_denom * (own - q + 1) / (own * q)
    data.frame(voxel = v, f = f, numerator = q, dof = own - q + 1)
  }))
}

# CR2 of clubSandwich after least squares
htz <- function(X, y, cluster, weights) {
  model <- lm(y ~ 0 + X)
  Wald_test(model, vcov = vcovCR(model, cluster = cluster, type = "CR2"), constraints = weights, test = "HTZ")
}
robust <- function(X, y, cluster, weights) {
  model <- lm(y ~ 0 + X); vcov <- vcovCR(model, cluster = cluster, type = "CR2")
  linear_contrast(model, vcov = vcov, contrasts = weights, test = "Satterthwaite", p_values = TRUE)
}
